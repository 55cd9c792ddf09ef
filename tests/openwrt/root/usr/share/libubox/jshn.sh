# Stand-in for OpenWrt's: objects of strings and numbers, not nested.
# shellcheck shell=dash
json_init() { json_body=; }
json_load() { json_input=$1; }
json_get_var() {
	local value
	value=$(printf '%s\n' "$json_input" | sed -n "s/.*\"$2\" *: *\"\(\([^\"\\\\]\|\\\\.\)*\)\".*/\1/p" | sed 's/\\\(.\)/\1/g')
	[ -n "$value" ] || value=$(printf '%s\n' "$json_input" | sed -n "s/.*\"$2\" *: *\([0-9]*\).*/\1/p")
	eval "$1=\$value"
}
json_add() { json_body="$json_body${json_body:+, }\"$1\": $2"; }
json_add_int() { json_add "$1" "$2"; }
json_add_boolean() { if [ "$2" = 1 ]; then json_add "$1" true; else json_add "$1" false; fi; }
json_add_string() {
	json_add "$1" "\"$(printf '%s' "$2" | sed 's/\\/\\\\/g; s/"/\\"/g; s/	/\\t/g' | awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }')\""
}
json_dump() { echo "{ $json_body }"; }
