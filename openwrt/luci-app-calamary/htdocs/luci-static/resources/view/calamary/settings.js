'use strict';
'require form';
'require view';
'require tools.widgets as widgets';

return view.extend({
	render: function() {
		const m = new form.Map('calamary', _('Calamary'),
			_('A proxy that filters the traffic of the LAN by names and protocols, and decrypts nothing. Its rules are on the page “Rules and lists”.'));
		let s, o;

		s = m.section(form.NamedSection, 'main', 'service', _('Service'));
		o = s.option(form.Flag, 'enabled', _('Enable'));
		o.rmempty = false;
		o = s.option(form.Value, 'config_file', _('Configuration file'));
		o.datatype = 'file';
		o.placeholder = '/etc/calamary/config.yml';
		o = s.option(form.Value, 'metrics', _('Metrics'), _('Where the status page asks the daemon.'));
		o.placeholder = 'http://127.0.0.1:9512/metrics';

		s = m.section(form.NamedSection, 'intercept', 'intercept', _('Interception'),
			_('Which traffic the firewall hands to the proxy. Devices need no settings.'));
		o = s.option(form.Flag, 'enabled', _('Intercept traffic'));
		o.rmempty = false;
		o.default = '1';
		o = s.option(widgets.ZoneSelect, 'zone', _('Firewall zones'));
		o.multiple = true;
		o.nocreate = true;
		o = s.option(form.DynamicList, 'port', _('Ports'), _('TCP ports, or ranges like 8000-8999.'));
		o.datatype = 'portrange';
		o = s.option(form.ListValue, 'mode', _('Mode'));
		o.value('tproxy', _('TPROXY: packets as they are'));
		o.value('redirect', _('Redirect: works on every kernel'));
		o = s.option(form.ListValue, 'on_failure', _('If the daemon fails'),
			_('With “nothing passes”, nobody in these zones reaches these ports until it is back. “Redirect” always means that.'));
		o.depends('mode', 'tproxy');
		o.value('open', _('everything passes unfiltered'));
		o.value('closed', _('nothing passes'));
		o = s.option(form.ListValue, 'ipv6', _('IPv6'));
		o.value('proxy', _('as IPv4'));
		o.value('block', _('refused, so that devices take IPv4'));
		o.value('pass', _('passes unfiltered'));
		o = s.option(form.ListValue, 'quic', _('QUIC (UDP port 443)'),
			_('Refused, browsers take TCP at once. To the proxy needs TPROXY and a listener with udp: true.'));
		o.value('block', _('refused, so that browsers take TCP'));
		o.value('proxy', _('to the proxy'));
		o.value('pass', _('passes unfiltered'));

		return m.render();
	}
});
