'use strict';
'require fs';
'require rpc';
'require ui';
'require view';

// The daemon's configuration and its lists. What would be refused is not kept: the file becomes again what it was.

const FOLDER = '/etc/calamary/lists/';
const RULES = '/etc/calamary/config.yml';
// A ubus message is smaller than a large list.
const MAX_SIZE = 256 * 1024;

const callCheck = rpc.declare({ object: 'luci.calamary', method: 'check', expect: { '': {} } });
const callReload = rpc.declare({ object: 'luci.calamary', method: 'reload', expect: { '': {} } });

function say(title, text, level) {
	ui.addNotification(title, E('pre', [ text ]), level);
}

function put(path, text) {
	return text == null ? fs.remove(path) : fs.write(path, text);
}

// Writes a file, or removes it if there is no text, and reloads the daemon; `before` is what it was, null for nothing.
function change(path, before, text) {
	return put(path, text).then(callCheck).then(checked => {
		if (checked.code)
			return put(path, before).then(() => { say(_('Refused, nothing is changed'), checked.output, 'danger'); return false; });

		return callReload().then(reloaded => {
			if (reloaded.code)
				say(_('Saved, but not in force'), reloaded.output, 'warning');
			else
				say(_('Saved'), checked.output, 'info');

			return true;
		});
	}).catch(error => { say(_('Failed'), error.message, 'danger'); return false; });
}

return view.extend({
	load: function() {
		return L.resolveDefault(fs.list(FOLDER), []).then(entries => {
			const files = entries.filter(e => e.type == 'file').sort((a, b) => a.name < b.name ? -1 : 1);

			return Promise.all([ { name: RULES, size: 0 } ].concat(files).map(entry => {
				const path = entry.name == RULES ? RULES : FOLDER + entry.name;

				return entry.size > MAX_SIZE ? { path, large: true }
					: L.resolveDefault(fs.read(path), '').then(text => ({ path, text }));
			}));
		});
	},

	editor: function(file) {
		const title = E('h3', [ file.path == RULES ? _('Rules') : file.path.slice(FOLDER.length) ]);

		if (file.large)
			return E('div', { 'class': 'cbi-section' }, [ title, E('p', [ _('Too large to be edited here.') ]) ]);

		const area = E('textarea', { 'rows': file.path == RULES ? 24 : 8, 'style': 'width:100%; font-family:monospace', 'spellcheck': 'false' }, [ file.text ]);
		const buttons = [
			E('button', { 'class': 'cbi-button cbi-button-save', 'click': ui.createHandlerFn(this, () => {
				const text = area.value.replace(/\r\n/g, '\n').replace(/\n?$/, '\n');

				return change(file.path, file.text, text).then(done => { if (done) file.text = text; });
			}) }, [ _('Save and reload') ])
		];

		if (file.path != RULES)
			buttons.push(' ', E('button', { 'class': 'cbi-button cbi-button-remove', 'click': ui.createHandlerFn(this, () =>
				change(file.path, file.text, null).then(done => { if (done) area.closest('.cbi-section').remove(); }))
			}, [ _('Delete') ]));

		return E('div', { 'class': 'cbi-section', 'data-path': file.path }, [ title, area, E('div', buttons) ]);
	},

	render: function(files) {
		const box = E('div', files.map(file => this.editor(file)));
		const name = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'placeholder': 'kids.txt' });
		const add = E('button', { 'class': 'cbi-button cbi-button-add', 'click': ui.createHandlerFn(this, () => {
			const path = FOLDER + name.value;

			if (!/^[A-Za-z0-9_-][A-Za-z0-9_.-]*$/.test(name.value) || box.querySelector('[data-path="%s"]'.format(path)))
				return say(_('Failed'), _('Letters, digits, dot, dash and underscore make a name, each of them once.'), 'warning');

			const text = '# %s\n'.format(name.value);

			return change(path, null, text).then(done => { if (done) box.appendChild(this.editor({ path, text })); });
		}) }, [ _('New list') ]);

		return E([], [
			E('h2', [ _('Rules and lists') ]),
			E('div', { 'class': 'cbi-map-descr' }, [ _('A list has a name a line, which stands for all names below it, too. A new list does nothing until a variable of the rules names it.') ]),
			box,
			E('div', { 'class': 'cbi-section' }, [ name, ' ', add ])
		]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
