'use strict';
'require poll';
'require rpc';
'require uci';
'require view';

// The daemon's metrics, as a table that a router's owner understands.

const callStatus = rpc.declare({ object: 'luci.calamary', method: 'status', expect: { '': {} } });

// Lines of the Prometheus text format: { name: [ { labels, value } ] }
function parse(text) {
	const metrics = {};

	for (const line of (text || '').split('\n')) {
		const found = line.match(/^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/i);

		if (found)
			(metrics[found[1]] = metrics[found[1]] || []).push({ labels: found[2] || '', value: +found[3] });
	}

	return metrics;
}

function sum(metrics, name, label) {
	const matching = (metrics[name] || []).filter(m => !label || m.labels.includes(label));

	return matching.length ? matching.reduce((total, m) => total + m.value, 0) : null;
}

function shown(value, format) {
	return value == null ? '-' : format ? format.format(value) : String(value);
}

function duration(seconds) {
	return seconds == null ? '-' : '%t'.format(seconds);
}

function rows(status) {
	const metrics = parse(status.metrics);
	const mode = uci.get('calamary', 'intercept', 'mode') || 'tproxy';
	const closed = mode == 'redirect' || uci.get('calamary', 'intercept', 'on_failure') == 'closed';

	return [
		[ _('Running'), status.running ? _('yes') : _('no') ],
		[ _('Version'), status.version || '-' ],
		[ _('Uptime'), duration(sum(metrics, 'calamary_uptime_seconds')) ],
		[ _('Traffic of the LAN is intercepted'), status.intercepting ? _('yes') : _('no') ],
		[ _('If the daemon fails'), closed ? _('nothing passes') : _('everything passes unfiltered') ],
		[ _('Connections now'), shown(sum(metrics, 'calamary_current_connections')) ],
		[ _('Let through'), shown(sum(metrics, 'calamary_rule_actions', 'action="accept"')) ],
		[ _('Denied'), shown(sum(metrics, 'calamary_rule_actions', 'action="deny"')) ],
		[ _('Received'), shown(sum(metrics, 'calamary_bytes_rcv'), '%1024.1mB') ],
		[ _('Sent'), shown(sum(metrics, 'calamary_bytes_sent'), '%1024.1mB') ],
		[ _('Memory'), shown(sum(metrics, 'process_resident_memory_bytes'), '%1024.1mB') ]
	];
}

// How often each rule decided, the busiest first.
function rules(status) {
	const matches = (parse(status.metrics).calamary_rule_matches || [])
		.map(m => [ (m.labels.match(/ruleId="(.*?)"/) || [])[1], m.value ])
		.filter(([ rule, count ]) => rule != null && count > 0);

	return matches.sort((a, b) => b[1] - a[1]).map(([ rule, count ]) => [ rule, String(count) ]);
}

// The daemon's own page, if it is to be seen from outside the router.
function link(status) {
	const page = /^https?:\/\/(?!127\.|localhost|\[::1\])[^\/]+\//.exec(status.url || '');

	return page ? E('p', [ E('a', { 'href': page[0], 'rel': 'noreferrer' }, [ _('Status page of the daemon: what was denied most, and the last hour') ]) ]) : '';
}

function live(status) {
	return status.connections ? E('pre', { 'id': 'calamary-live' }, [ status.connections ]) :
		E('p', [ _('The daemon cannot be asked: its configuration has no “live”, or it does not run.') ]);
}

function table(id, heads, lines) {
	return E('table', { 'class': 'table', 'id': id }, [
		heads.length ? E('tr', { 'class': 'tr table-titles' }, heads.map(h => E('th', { 'class': 'th' }, [ h ]))) : ''
	].concat(lines.map(line => E('tr', { 'class': 'tr' }, line.map(cell => E('td', { 'class': 'td left' }, [ cell ]))))));
}

return view.extend({
	load: function() {
		return Promise.all([ L.resolveDefault(callStatus(), {}), uci.load('calamary') ]);
	},

	content: function(status) {
		return [
			E('div', { 'class': 'cbi-section' }, [ table('calamary-status', [], rows(status)), link(status) ]),
			E('div', { 'class': 'cbi-section' }, [
				E('h3', [ _('What decided') ]),
				table('calamary-rules', [ _('Rule'), _('Connections') ], rules(status))
			]),
			E('div', { 'class': 'cbi-section' }, [ E('h3', [ _('Live connections') ]), live(status) ])
		];
	},

	render: function([ status ]) {
		const box = E('div', this.content(status));

		poll.add(() => L.resolveDefault(callStatus(), {}).then(now => { box.replaceChildren(...this.content(now)); }), 5);

		return E([], [ E('h2', [ _('Calamary') ]), box ]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
