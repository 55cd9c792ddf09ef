# Stand-in for procd and its shell functions. What a service asks for is recorded in /tmp/procd/NAME, a line for each
# parameter; the daemon runs as that user, with those capabilities, and, as procd does it, gets reload_signal only if the
# record or a watched file has changed.
# shellcheck shell=dash disable=SC2034,SC2154
records=/tmp/procd
mkdir -p "$records"

procd_open_service() { service_name=$1 record=$records/$1.new; : >"$record"; }
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_set_param() { echo "$*" >>"$record"; }
procd_append_param() { procd_set_param "$@"; }
procd_add_jail() { echo "jail $*" >>"$record"; }
procd_add_jail_mount() { echo "mount $*" >>"$record"; }
procd_add_jail_mount_rw() { echo "mount_rw $*" >>"$record"; }
procd_add_reload_trigger() { echo "$*: $initscript reload" >>"$records/$service_name.triggers"; }
procd_add_raw_trigger() { local on=$1; shift 2; echo "$on: $*" >>"$records/$service_name.triggers"; }
procd_add_config_trigger() { shift; local on=$1; shift; echo "$on: $*" >>"$records/$service_name.triggers"; }
procd_add_validation() { "$1"; }
parameter() { sed -n "s/^$1 //p" "${2:-$record}"; }

procd_close_service() {
	: >"$records/$service_name.triggers"
	service_triggers
	local now=$records/$service_name file
	for file in $(parameter file); do echo "sum $(md5sum "$file")"; done >>"$record"
	if ! grep -q '^command ' "$record"; then
		rm -f "$record"
		procd_kill "$service_name"
	elif ! procd_running "$service_name"; then
		mv "$record" "$now"
		record=$now procd_start
	elif cmp -s "$record" "$now"; then
		rm -f "$record"
	else
		mv "$record" "$now"
		kill "-$(parameter reload_signal "$now")" "$(cat "$now.pid")"
	fi
}
procd_running() { [ -s "$records/$1.pid" ] && grep -qs '^State:.[^ZX]' "/proc/$(cat "$records/$1.pid")/status"; }
procd_kill() {
	! procd_running "$1" || {
		kill "$(cat "$records/$1.pid")"
		while procd_running "$1"; do sleep 0.05; done
	}
	rm -f "$records/$1" "$records/$1.pid"
}
id_of() { sed -n "s/^$1:x:\([0-9]*\):.*/\1/p" "$2"; }
procd_start() {
	local kept
	kept=$(sed -n '/"ambient"/{s/.*\[//;s/\].*//;s/[" ]//g;s/CAP_/+/g;p;}' "$(parameter capabilities)" | tr '[:upper:]' '[:lower:]')
	# shellcheck disable=SC2046 # words
	/host/usr/bin/setpriv --reuid "$(id_of "$(parameter user)" /etc/passwd)" --regid "$(id_of "$(parameter group)" /etc/group)" \
		--clear-groups --no-new-privs --inh-caps="-all,$kept" --ambient-caps="-all,$kept" --bounding-set="-all,$kept" \
		$(parameter command) >>"/tmp/log/$service_name" 2>&1 </dev/null &
	echo $! >"$records/$service_name.pid"
}

# Sets a variable for each NAME:TYPE:DEFAULT, as validate_data does: a value that is not of its type is an error.
uci_load_validate() {
	local package=$1 type=$2 section=$3 callback=$4 spec name rest value valid=0
	shift 4
	for spec in "$@"; do
		name=${spec%%:*} rest=${spec#*:}
		eval "local $name"
		config_get value "$section" "$name" "${rest##*:}"
		case $rest in
		bool:*) case $value in 1 | on | true | yes | enabled) value=1 ;; 0 | off | false | no | disabled) value=0 ;; *) valid=1 ;; esac ;;
		or\(*) case $rest in *"\"$value\""*) ;; *) valid=1 ;; esac ;;
		port:*) [ "$value" -le 65535 ] 2>/dev/null || valid=1 ;;
		list\(portrange\):*) case $value in *[!0-9\ -]*) valid=1 ;; esac ;;
		file:*) [ -f "$value" ] || valid=1 ;;
		string:* | list\(string\):*) ;;
		*) echo "the stand-in does not know $rest" >&2; exit 1 ;;
		esac
		eval "$name=\$value"
	done
	[ -z "$callback" ] || "$callback" "$section" "$valid"
}
