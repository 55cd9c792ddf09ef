# Stand-in for OpenWrt's: UCI files are read as the shell commands that they nearly are, and the scripts of a package run as
# default_postinst and default_prerm run them.
# shellcheck shell=dash disable=SC1090,SC2013
config() {
	CONFIG_SECTION=${2:-cfg$((CONFIG_COUNT += 1))}
	CONFIG_SECTIONS="$CONFIG_SECTIONS $CONFIG_SECTION"
	eval "CONFIG_${CONFIG_SECTION}_TYPE=\$1"
}
option() { eval "CONFIG_${CONFIG_SECTION}_$1=\$2"; }
list() { eval "CONFIG_${CONFIG_SECTION}_$1=\"\${CONFIG_${CONFIG_SECTION}_$1}\${CONFIG_${CONFIG_SECTION}_$1:+ }\$2\""; }

config_load() {
	local variable
	for variable in $(set | sed -n 's/^\(CONFIG_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$variable"; done
	CONFIG_COUNT=0 CONFIG_SECTIONS=
	. "/etc/config/$1"
}
config_get() { eval "$1=\${CONFIG_$2_$3:-\$4}"; }
config_foreach() {
	local section type
	for section in $CONFIG_SECTIONS; do
		config_get type "$section" TYPE
		[ "$type" != "$2" ] || "$1" "$section"
	done
}
list_contains() { eval "case \" \$$1 \" in *\" \$2 \"*) ;; *) false ;; esac"; }

default_postinst() {
	local package=${1##*/} tuple script
	package=${package%.*}
	for tuple in $(sed -n 's/^Require-User: *//p' "/usr/lib/opkg/info/$package.control"); do
		local user=${tuple%%:*} group=${tuple#*:}
		grep -q "^${group%=*}:" /etc/group || echo "${group%=*}:x:${group#*=}:" >>/etc/group
		grep -q "^${user%=*}:" /etc/passwd || echo "${user%=*}:x:${user#*=}:${group#*=}::/var/run:/bin/false" >>/etc/passwd
	done
	for script in $(grep '^/etc/uci-defaults/' "/usr/lib/opkg/info/$package.list"); do
		[ ! -f "$script" ] || { (. "$script") && rm -f "$script"; }
	done
	script=/usr/lib/opkg/info/$package.postinst-pkg
	[ ! -f "$script" ] || (. "$script")
	for script in $(grep '^/etc/init.d/' "/usr/lib/opkg/info/$package.list"); do
		[ "$PKG_UPGRADE" = 1 ] || "$script" enable
		"$script" start
	done
}
default_prerm() {
	local package=${1##*/} script
	package=${package%.*}
	for script in $(grep '^/etc/init.d/' "/usr/lib/opkg/info/$package.list"); do
		[ "$PKG_UPGRADE" = 1 ] || "$script" disable
		"$script" stop
	done
}
