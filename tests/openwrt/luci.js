// Stand-ins for what LuCI gives a view, and a run through our views. What is asserted is in luci.rs; this writes down what it
// sees. `canned` holds the answers of ubus, `files` the router's files.
'use strict';

const calls = [];
const _ = text => text;

String.prototype.format = function(...values) {
	return this.replace(/%(?:1024\.1mB|[sdt])/g, () => String(values.shift()));
};

// As LuCI's E(): a text that is not in an array would be taken for HTML, which nothing from outside may be.
function E(tag, attributes, children) {
	if (Array.isArray(attributes) || attributes instanceof Node)
		[ attributes, children ] = [ {}, attributes ];

	const node = Array.isArray(tag) ? document.createDocumentFragment() : document.createElement(tag);

	for (const [ key, value ] of Object.entries(attributes || {}))
		typeof value == 'function' ? node.addEventListener(key, value) : node.setAttribute(key, value);

	if (typeof children == 'string')
		throw new Error('text as HTML: ' + children);

	for (const child of [ children || [] ].flat(Infinity))
		node.append(child);

	return node;
}

const L = {
	resolveDefault: (promise, value) => Promise.resolve(promise).catch(() => value),
	url: path => '/cgi-bin/luci/' + path
};

class Option {
	constructor(section, kind, name, title) { Object.assign(this, { kind, name, title, values: [] }); section.options.push(this); }
	value(key) { this.values.push(key); }
	depends() {}
}

class Section {
	constructor(name, type) { Object.assign(this, { name, type, options: [] }); }
	option(kind, name, title) { return new Option(this, kind, name, title); }
}

const modules = {
	view: { extend: view => view },
	rpc: {
		declare: ({ object, method, params, expect }) => (...values) => {
			const [ key ] = Object.keys(expect);
			calls.push([ method, ...values ]);
			const answer = typeof canned[method] == 'function' ? canned[method](...values) : canned[method];
			return Promise.resolve(key ? answer[key] : answer);
		}
	},
	poll: { add: poll => poll() },
	uci: { load: () => Promise.resolve(), get: (package_, section, option) => canned.uci[section][option] },
	fs: {
		list: folder => Promise.resolve(Object.keys(files).filter(path => path.startsWith(folder))
			.map(path => ({ name: path.slice(folder.length), type: 'file', size: files[path].length }))),
		read: path => Promise.resolve(files[path]),
		write: (path, text) => { files[path] = text; return Promise.resolve(0); },
		remove: path => { delete files[path]; return Promise.resolve(0); }
	},
	ui: {
		createHandlerFn: (context, handler) => event => handler.call(context, event),
		addNotification: (title, node) => note('notification', title + ': ' + node.textContent)
	},
	form: {
		Flag: 'Flag', Value: 'Value', ListValue: 'ListValue', DynamicList: 'DynamicList', NamedSection: 'NamedSection',
		Map: class {
			constructor(package_) { this.sections = []; }
			section(kind, name, type) { this.sections.push(new Section(name, type)); return this.sections.at(-1); }
			render() {
				return E('div', this.sections.flatMap(section => section.options.map(option =>
					E('p', [ `${section.name}:${section.type}.${option.name} ${option.values.join('|')}` ]))));
			}
		}
	},
	'tools.widgets': { ZoneSelect: 'ZoneSelect' }
};

function note(what, text) {
	document.body.append(E('pre', { 'class': 'note' }, [ `${what}: ${text}` ]), '\n');
}

const settled = () => new Promise(done => setTimeout(done, 50));

// Loads a view as LuCI does: its source is the body of a function of the modules that it requires.
async function show(name) {
	const source = document.getElementById(name).textContent;
	const required = [ ...source.matchAll(/^'require (\S+?)(?: as (\S+))?';$/gm) ];
	const names = required.map(([ , module, alias ]) => alias || module);
	const view = new Function('E', '_', 'L', 'location', ...names, source)(E, _, L, page, ...required.map(([ , module ]) => modules[module]));
	const node = await view.render(await (view.load ? view.load() : undefined));
	const box = E('div', { 'id': 'view-' + name }, [ node ]);

	document.body.append(box);
	await settled();

	return box;
}

const rowsOf = box => [ ...box.querySelectorAll('tr') ].map(row => [ ...row.cells ].map(cell => cell.textContent).join(' | '));
const press = (box, title) => { [ ...box.querySelectorAll('button') ].find(b => b.textContent == title).click(); return settled(); };

async function run() {
	const status = await show('status');
	rowsOf(status).forEach(row => note('status', row));
	note('live', status.querySelector('#calamary-live').textContent);
	note('link', [ ...status.querySelectorAll('a') ].map(a => a.getAttribute('href')).join());

	(await show('settings')).querySelectorAll('p').forEach(p => note('settings', p.textContent));

	const log = await show('log');
	rowsOf(log).forEach(row => note('log', row));
	note('log link', log.querySelector('a').getAttribute('href'));
	log.querySelector('input[type=checkbox]').click();
	note('log denied', rowsOf(log).length - 1);

	// The link of the log is what the page is asked with.
	page.search = log.querySelector('a').getAttribute('href').replace(/^[^?]*/, '');
	note('why', (await show('why')).querySelector('pre').textContent);
	note('why asked', calls.filter(([ method ]) => method == 'why').at(-1)[1]);

	const view = await show('files');
	const list = view.querySelector('[data-path$="deny.txt"]');
	list.querySelector('textarea').value = 'refuse me';
	await press(list, 'Save and reload');
	note('refused', files['/etc/calamary/lists/deny.txt']);
	list.querySelector('textarea').value = 'other.example\r\nmore.example';
	await press(list, 'Save and reload');
	note('saved', JSON.stringify(files['/etc/calamary/lists/deny.txt']));
	await press(list, 'Delete');
	note('after delete', Object.keys(files).join(' '));
	view.querySelector('input').value = '../evil';
	await press(view, 'New list');
	view.querySelector('input').value = 'kids.txt';
	await press(view, 'New list');
	note('after new', Object.keys(files).join(' '));
	note('reloads', calls.filter(([ method ]) => method == 'reload').length);
	note('end', 'reached');
}

run().catch(error => note('error', error.stack));
