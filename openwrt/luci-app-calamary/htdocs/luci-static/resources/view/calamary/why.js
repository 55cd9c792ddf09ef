'use strict';
'require rpc';
'require ui';
'require view';

// Asks the daemon's rules about a connection that nobody makes: every rule in order, and which field matched or failed.

const callWhy = rpc.declare({ object: 'luci.calamary', method: 'why', params: [ 'facts' ], expect: { '': {} } });

const FACTS = [
	[ 'src', _('Client'), '192.168.1.20' ],
	[ 'dest', _('Destination address'), '203.0.113.5' ],
	[ 'port', _('Port'), '443' ],
	[ 'dns', _('Name'), 'www.example.com' ],
	[ 'device', _('Device'), 'tablet' ],
	[ 'protoL5', _('Protocol: tls, http, quic, dns, ntp or none'), 'tls' ]
];

return view.extend({
	render: function() {
		const asked = new URLSearchParams(location.search);
		const inputs = FACTS.map(([ key, , example ]) => E('input', { 'type': 'text', 'class': 'cbi-input-text', 'name': key, 'placeholder': example, 'value': asked.get(key) || '' }));
		const answer = E('pre', { 'id': 'calamary-why' });
		const ask = () => {
			// A value is one word: a second fact cannot hide in it.
			const facts = inputs.filter(input => input.value.trim()).map(input => input.name + '=' + input.value.trim().replace(/\s.*/, ''));

			return callWhy(facts.join(' ')).then(result => { answer.textContent = result.output; }, error => { answer.textContent = error.message; });
		};

		if ([ ...asked.keys() ].length)
			ask();

		return E([], [
			E('h2', [ _('Why') ]),
			E('div', { 'class': 'cbi-map-descr' }, [ _('Which rule decides, and why no other does. What is left empty is unknown; device and time are looked up.') ]),
			E('div', { 'class': 'cbi-section' }, FACTS.map(([ , title ], i) => E('div', { 'class': 'cbi-value' }, [
				E('label', { 'class': 'cbi-value-title' }, [ title ]), E('div', { 'class': 'cbi-value-field' }, [ inputs[i] ])
			])).concat([
				E('button', { 'class': 'cbi-button cbi-button-apply', 'click': ui.createHandlerFn(this, ask) }, [ _('Ask') ]),
				answer
			]))
		]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
