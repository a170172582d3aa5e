#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Urgent data travels in line, in its place, also through a flow that is being spliced:
# splice(2) stops at the mark, and answers 0 there when a FIN is queued behind it.
. "$(dirname "$0")/../lib/netlab.sh"

server echo echo 8001
start_sluice "routes:
$(route urgent 8080 "\"$BACKEND_IP:8001\"")"
baseline

for bulk in 100 3000000; do
	say "urgent bytes behind $bulk others, then more, then a FIN"
	in_ns client /usr/bin/python3 - "$PROXY_IP" 8080 "$bulk" <<-'PY' || fail "bytes were lost or changed"
		import hashlib, socket, sys, threading
		host, port, bulk = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
		s = socket.create_connection((host, port), 10)
		sent, got = hashlib.sha256(), hashlib.sha256()
		def read():
		    while True:
		        d = s.recv(65536)
		        if not d:
		            return
		        got.update(d)
		t = threading.Thread(target=read)
		t.start()
		def put(data, flags=0):
		    if flags:
		        s.send(data, flags)
		    else:
		        s.sendall(data)
		    sent.update(data)
		for i in range(20):
		    put(bytes([i]) * bulk)
		    put(b"!", socket.MSG_OOB)
		    put(b"tail %d" % i)
		s.shutdown(socket.SHUT_WR)
		t.join(20)
		sys.exit(0 if not t.is_alive() and sent.digest() == got.digest() else 1)
	PY
done
assert_ended urgent 2 normal normal
assert_back_to_baseline
