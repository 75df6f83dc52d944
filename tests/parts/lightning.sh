#!/bin/bash
# Real Lightning without the internet: bitcoind, electrumx and two Electrum nodes on regtest, with a
# channel between them. alice has the money and bob sells; each is reached over Nostr Wallet Connect.
#
#   lightning.sh install           once: Debian sid in a directory with what bookworm lacks (520 MB)
#   lightning.sh up RELAY          a fresh chain, a fresh channel; RELAY carries the wallets' calls
#   lightning.sh electrum NAME ... one command of alice's or bob's node
#   lightning.sh down              all of it ends
#
# As root, because of chroot. Everything lies in LIGHTNING_DIR (.parts/lightning); when it is up,
# alice.uri and bob.uri in there hold the connections. sid moves, so nothing of it is pinned.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
place=${LIGHTNING_DIR:-$here/.parts/lightning}
sid=$place/sid
rpc_port=${LIGHTNING_RPC_PORT:-18443}
electrum_port=${LIGHTNING_ELECTRUM_PORT:-51001}
admin_port=${LIGHTNING_ADMIN_PORT:-58000}
peer_port=${LIGHTNING_PEER_PORT:-9735}

say() { echo "lightning: $*" >&2; }

inside() { chroot "$sid" env HOME=/root LC_ALL=C.UTF-8 PYTHONWARNINGS=ignore "$@"; }

bitcoin() {
    inside bitcoin-cli -regtest -datadir=/root/chain -rpcport="$rpc_port" \
        -rpcuser=tests -rpcpassword=tests "$@"
}

electrum() {
    local name=$1
    shift
    inside electrum --regtest -D "/root/$name" "$@"
}

mine() { bitcoin generatetoaddress "$1" "$(bitcoin getnewaddress)" >/dev/null; }

# until_true SECONDS WHAT COMMAND...
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        if ((SECONDS > deadline)); then
            say "waited in vain for $what"
            return 1
        fi
        sleep 0.3
    done
}

logged() {
    local log=$place/install.log
    "$@" >>"$log" 2>&1 || { tail -20 "$log" >&2; return 1; }
}

install_all() {
    [ ! -e "$place/.made" ] || return 0
    "$here/contrib/debian-needs" debootstrap python3-venv
    mkdir -p "$place"
    : >"$place/install.log"
    say "Debian sid with bitcoind and Electrum (520 MB, about two minutes)"
    local mirror
    # This machine's own mirror serves sid, too.
    # shellcheck disable=SC2016  # apt's own variable
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
        grep -v security | head -1)
    rm -rf --one-file-system "$sid"
    logged debootstrap --variant=minbase --include=ca-certificates sid "$sid" "$mirror"
    cp /etc/resolv.conf "$sid/etc/"
    cp -r /etc/apt/apt.conf.d/. "$sid/etc/apt/apt.conf.d/"
    logged inside apt-get update -q
    logged inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends bitcoin-knots python3-electrum
    # The program itself is in a package that wants a desktop.
    logged inside sh -c 'cd /tmp && apt-get download -q electrum && dpkg -x electrum_*.deb x &&
        cp x/usr/bin/electrum /usr/local/bin/ && rm -rf x electrum_*.deb'
    # electrumx 2.0 refuses this bitcoind.
    logged "${PYTHON:-/usr/bin/python3}" -m venv "$place/electrumx"
    logged "$place/electrumx/bin/pip" install -q --disable-pip-version-check \
        'e-x[leveldb]==1.20.0'
    touch "$place/.made"
}

start_chain() {
    inside bitcoind -regtest -daemonwait -datadir=/root/chain -server -txindex=1 -listen=0 \
        -rpcuser=tests -rpcpassword=tests -rpcbind=127.0.0.1 -rpcallowip=127.0.0.1/32 \
        -rpcport="$rpc_port" -fallbackfee=0.0001 -dnsseed=0 -discover=0 >/dev/null
    bitcoin createwallet miner >/dev/null
    mine 110
}

start_electrumx() {
    COIN=Bitcoin NET=regtest DB_DIRECTORY=$place/index ALLOW_ROOT=1 \
        DAEMON_URL="http://tests:tests@127.0.0.1:$rpc_port/" \
        SERVICES="tcp://127.0.0.1:$electrum_port,rpc://127.0.0.1:$admin_port" REPORT_SERVICES='' \
        PEER_DISCOVERY=off PEER_ANNOUNCE='' COST_SOFT_LIMIT=0 COST_HARD_LIMIT=0 \
        setsid "$place/electrumx/bin/electrumx_server" </dev/null >"$place/electrumx.log" 2>&1 &
    echo $! >"$place/electrumx.pid"
    until_true 30 electrumx grep -q 'TCP server listening' "$place/electrumx.log"
}

start_node() {
    local name=$1 relay=$2 setting
    electrum "$name" create --offline >/dev/null
    for setting in "use_gossip true" "lightning_to_self_delay 144" "test_force_disable_mpp true" \
        "plugins.nwc.enabled true" "nostr_relays $relay" "plugins.nwc.relay $relay"; do
        # shellcheck disable=SC2086  # two words on purpose
        electrum "$name" setconfig --offline $setting >/dev/null
    done
    if [ "$name" = bob ]; then
        electrum bob setconfig --offline lightning_listen "127.0.0.1:$peer_port" >/dev/null
    fi
    # A server set with setconfig is forgotten at the start; and the subcommand comes first.
    inside electrum daemon -d --regtest -D "/root/$name" --oneserver \
        -s "127.0.0.1:$electrum_port:t" >/dev/null
    electrum "$name" load_wallet >/dev/null
}

alice_is_rich() { electrum alice getbalance | grep -q '"confirmed": "1"'; }

channel_is_open() { electrum "$1" list_channels | grep -q '"state": "OPEN"'; }

open_channel() {
    bitcoin sendtoaddress "$(electrum alice getunusedaddress)" 1 >/dev/null
    mine 3
    until_true 60 "alice's coin" alice_is_rich
    electrum alice open_channel "$(electrum bob nodeid)" 0.1 --push_amount 0.02 >/dev/null
    sleep 1
    mine 6
    until_true 120 "alice's channel" channel_is_open alice
    until_true 60 "bob's channel" channel_is_open bob
}

up() {
    local relay=$1 name
    down
    rm -rf "$sid/root/chain" "$sid/root/alice" "$sid/root/bob" "$place/index" "$place"/*.uri
    mkdir -p "$sid/root/chain" "$place/index"
    mount -t proc proc "$sid/proc"
    say "chain and index"
    start_chain
    start_electrumx
    say "alice and bob"
    start_node bob "$relay"
    start_node alice "$relay"
    say "their channel"
    open_channel
    for name in alice bob; do
        electrum "$name" nwc_add_connection tests | tail -1 >"$place/$name.uri"
        chmod 600 "$place/$name.uri"
    done
    say "up"
}

# Whatever runs with the chroot as its root is ours.
ours() {
    local entry
    for entry in /proc/[0-9]*; do
        [ "$(readlink "$entry/root" || true)" != "$sid" ] || basename "$entry"
    done
    if [ -e "$place/electrumx.pid" ] &&
        grep -qs electrumx_server "/proc/$(cat "$place/electrumx.pid")/cmdline"; then
        cat "$place/electrumx.pid"
    fi
}

all_gone() { [ -z "$(ours)" ]; }

signal_all() {
    local pid
    for pid in $(ours); do
        kill "-$1" "$pid" 2>/dev/null || true
    done
}

down() {
    signal_all TERM
    until_true 20 "the end of all" all_gone || signal_all KILL
    rm -f "$place/electrumx.pid"
    if mountpoint -q "$sid/proc"; then umount "$sid/proc"; fi
}

case ${1:-} in
install) install_all ;;
up) up "${2:?the URL of a relay}" ;;
electrum) shift; electrum "$@" ;;
down) down ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
