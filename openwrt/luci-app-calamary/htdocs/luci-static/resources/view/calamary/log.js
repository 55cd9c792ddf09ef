'use strict';
'require poll';
'require rpc';
'require view';

// What the daemon decided of late, and a way from each line to why.

const LINES = 200;
const callLog = rpc.declare({ object: 'luci.calamary', method: 'log', params: [ 'lines' ], expect: { output: '' } });

// A verdict's line: 2023-10-01 23:43:01 | INFO | CLIENT => DESTINATION | VERDICT | rule=0 …
function parse(line) {
	const found = line.match(/(\d{4}-\d\d-\d\d \S+) \| INFO \| (\S+) => (\S+) \| (\w+) \| (.*)$/);

	if (!found)
		return null;

	const facts = {};
	for (const [ , key, value ] of found[5].matchAll(/(\S+?)=(\S*)/g))
		facts[key] = value;

	return { time: found[1], client: found[2], destination: found[3], verdict: found[4], facts };
}

function why(entry) {
	const known = { src: entry.client, dns: entry.facts.name, protoL5: entry.facts.proto };
	const at = entry.destination.match(/^\[?(.*?)\]?:(\d+)$/);

	if (at)
		[ , known.dest, known.port ] = at;

	const query = Object.entries(known).filter(([ , value ]) => value).map(([ key, value ]) => key + '=' + encodeURIComponent(value));

	return L.url('admin/services/calamary/why') + '?' + query.join('&');
}

return view.extend({
	load: function() {
		return L.resolveDefault(callLog(LINES), '');
	},

	lines: function() {
		const words = this.filter.value.toLowerCase();
		const entries = this.text.split('\n').filter(line => line.toLowerCase().includes(words)).map(parse)
			.filter(entry => entry && (!this.denied.checked || entry.verdict == 'Denied'));

		return entries.reverse().map(entry => E('tr', { 'class': 'tr' }, [
			entry.time, entry.client, entry.facts.name || entry.facts.query || '', entry.destination, entry.verdict, entry.facts.rule || entry.facts.reason || '',
			E('a', { 'href': why(entry) }, [ _('why?') ])
		].map(cell => E('td', { 'class': 'td left' }, [ cell ]))));
	},

	render: function(text) {
		const heads = [ _('Time'), _('Client'), _('Name'), _('Destination'), _('Verdict'), _('Rule'), '' ];
		const body = E('tbody');
		const show = () => body.replaceChildren(...this.lines());

		this.text = text;
		this.filter = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'placeholder': _('Search'), 'input': show });
		this.denied = E('input', { 'type': 'checkbox', 'change': show });
		show();
		poll.add(() => this.load().then(now => { this.text = now; show(); }), 5);

		return E([], [
			E('h2', [ _('Log') ]),
			E('div', { 'class': 'cbi-section' }, [
				this.filter, ' ', E('label', [ this.denied, ' ', _('only what was denied') ]),
				E('table', { 'class': 'table', 'id': 'calamary-log' }, [
					E('thead', [ E('tr', { 'class': 'tr table-titles' }, heads.map(h => E('th', { 'class': 'th' }, [ h ]))) ]), body
				])
			])
		]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
