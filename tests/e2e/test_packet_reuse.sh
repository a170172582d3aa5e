#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# While there is no broker a flow ends, and its client connects again from the same port: the programs
# make room for it, and the record of the flow is closed though nobody can tell how it ended.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet
need_split

server e echo 8001
start_packet "" "routes:
$(proute a 8081 "\"$BACKEND_IP:8001\"")"
packet_baseline
broker=$(jqs .processes.broker)
go=$LAB_DIR/go
# A connection that ends when the file is there, and at once another from the same port.
in_ns client /usr/bin/python3 - $PROXY_IP 8081 "$go" >"$LAB_DIR/c.out" 2>&1 <<-'CLIENT' &
	import os, socket, sys, time
	def connect():
	    s = socket.socket()
	    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	    s.settimeout(10)
	    s.bind(("", 23456))
	    s.connect((sys.argv[1], int(sys.argv[2])))
	    s.sendall(b"x")
	    assert s.recv(1) == b"x"
	    return s
	s = connect()
	while not os.path.exists(sys.argv[3]):
	    time.sleep(0.005)
	# both FINs are acknowledged, and no TIME_WAIT is left here
	s.shutdown(socket.SHUT_WR)
	assert s.recv(1) == b""
	s.setsockopt(socket.SOL_TCP, socket.TCP_REPAIR if hasattr(socket, "TCP_REPAIR") else 19, 1)
	s.close()
	s = connect()
	print("again")
	time.sleep(1)
CLIENT
client=$!
wait_engine a
first=$(sl conns --route a --json | jq '.[0].id')
kill -STOP "$SLUICE_PID" # so that no other broker is started yet
kill -KILL "$broker"
touch "$go"
wait_until 5000 grep -q again "$LAB_DIR/c.out" || fail "client: $(cat "$LAB_DIR/c.out")"
kill -CONT "$SLUICE_PID"
wait "$client" || fail "client: $(cat "$LAB_DIR/c.out")"
wait_until $((8000 * SLOW)) eval '[ "$(n_access a)" = 2 ]' || fail "not over: $(sl conns)"
line=$(access_lines a | grep -F " id=$first ")
assert_match "why: $line" "$line" 'client_reason=crash_recovered backend_reason=crash_recovered'
assert_packet_baseline
