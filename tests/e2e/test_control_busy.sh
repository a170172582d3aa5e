#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# More requests than the supervisor lets wait, and requests while it stops: each has an answer.
. "$(dirname "$0")/../lib/netlab.sh"

mkdir -p "/etc/netns/$LAB-p"
echo "nameserver 10.92.0.99" >"/etc/netns/$LAB-p/resolv.conf" # nobody is there, so a reload takes 2 s
server e echo 8000
start_sluice "routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")"

cat >"$LAB_DIR/reloads.py" <<'PY'
import collections, socket, sys, threading

seen = collections.Counter()


def ask():
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(float(sys.argv[3]))
        s.connect(sys.argv[1])
        s.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        try:
            answer = s.recv(65536)
        except TimeoutError:
            answer = b""
        seen[answer.split(b" ")[1].decode() if answer else "none"] += 1


threads = [threading.Thread(target=ask) for _ in range(int(sys.argv[2]))]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(*(f"{k}:{v}" for k, v in sorted(seen.items())))
PY
reloads() { # HOW_MANY
	/usr/bin/python3 "$LAB_DIR/reloads.py" "$LAB_DIR/main/run/control.sock" "$1" $((15 * SLOW))
}

say "200 reloads at once: those for whom there is no place are told"
write_conf "routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")
$(route named 8081 "\"nobody.example:80\"")"
answers=$(reloads 200)
echo "$answers"
assert_match "answers" "$answers" '^200:[0-9]+ 503:[0-9]+$'
assert_eq "one alone" "$(reloads 1)" 200:1

say "while the daemon stops"
client_bg long trickle to=$PROXY_IP:8080 ms=20 timeout=60
wait_for eval '[ "$(jqs .connections.active)" = 1 ]'
kill -TERM "$SLUICE_PID"
wait_log 'stopping: waiting'
before=$(now_ms)
assert_match "a reload" "$(reloads 1)" '^(422|500):1$'
assert_between "after" $(($(now_ms) - before)) 0 $((2000 * SLOW))
kill -TERM "$SLUICE_PID"
join_sluice
assert_eq "exit code" "$RC" 0
