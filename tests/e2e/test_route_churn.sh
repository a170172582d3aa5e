#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 100 changes of routes a second for 10 s under load: unchanged routes notice nothing, memory
# stays flat, nothing is left behind.
. "$(dirname "$0")/../lib/netlab.sh"
SECONDS_OF_CHURN=${SECONDS_OF_CHURN:-10}
RATE=${RATE:-100}

server http http 8000 size=2000
server e echo 8001
start_sluice "routes:
$(route web 8080 "\"$BACKEND_IP:8000\"")
$(route long 8081 "\"$BACKEND_IP:8001\"")
$(route named 8082 "\"$BACKEND_IP:8001\"")"
ino=$(inodes 8080 8081)

# churn SECONDS: one client, one request after the other at a fixed rate; prints what came of it.
cat >"$LAB_DIR/churn.py" <<'PY'
import http.client, json, random, socket, sys, time

path, seconds, rate, backend = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(path)


c = Unix("x")
rng = random.Random(7)
there, done, worst, bad = set(), 0, 0.0, []


def ask(method, target, body=None):
    c.request(method, target, body=body)
    r = c.getresponse()
    return r.status, r.read().decode()


def text(i, broken):
    ports = 99999 if broken else [9000 + i, 9300 + rng.randrange(100)] if i % 2 else 9000 + i
    return json.dumps({"match": {"ports": ports}, "forward": "%s:%d" % (backend, rng.choice([8000, 8001]))})


start = time.monotonic()
n = int(seconds * rate)
for k in range(n):
    i = rng.randrange(20)
    name, kind = "r%d" % i, rng.randrange(10)
    began = time.monotonic()
    if kind < 5 or name not in there:
        broken = kind == 0
        status, answer = ask("PUT", "/v1/routes/" + name, text(i, broken))
        want = (422,) if broken else (200, 201)
        if status in (200, 201):
            there.add(name)
    elif kind < 8:
        status, answer = ask("DELETE", "/v1/routes/" + name)
        want = (200,)
        there.discard(name)
    else:
        status, answer = ask("POST", "/v1/routes/%s/%s" % (name, "enable" if kind == 8 else "disable"))
        want = (200,)
    worst = max(worst, time.monotonic() - began)
    done += 1
    if status not in want:
        bad.append("%d: %s" % (status, answer))
    pause = start + (k + 1) / rate - time.monotonic()
    if pause > 0:
        time.sleep(pause)
took = time.monotonic() - start
for name in sorted(there):
    ask("DELETE", "/v1/routes/" + name)
print(json.dumps({"done": done, "seconds": round(took, 2), "worst_ms": round(worst * 1000), "bad": bad[:3], "n_bad": len(bad)}))
PY
churn() {
	in_ns proxy /usr/bin/python3 "$LAB_DIR/churn.py" "$LAB_DIR/main/run/control.sock" "$1" "$RATE" "$BACKEND_IP"
}

client_bg long trickle to=$PROXY_IP:8081 ms=10 c=3 timeout=200
client_bg load rate to=$PROXY_IP:8080 t=300 c=8 pause=10 expect=2000 timeout=400 v=1
say "warm-up"
churn 3
supervisor=$SLUICE_PID
before="$(rss_kib "$supervisor") $(rss_kib "$(proxy_pid)")"
fds="$(n_fds "$supervisor")"
say "churn"
result=$(churn "$SECONDS_OF_CHURN")
echo "$result"
after="$(rss_kib "$supervisor") $(rss_kib "$(proxy_pid)")"
echo "memory of supervisor and proxy in KiB: before $before, after $after"
assert_eq "answers that were not as expected" "$(jq -c '[.n_bad, .bad]' <<<"$result")" '[0,[]]'
assert_eq "changes" "$(jq .done <<<"$result")" $((SECONDS_OF_CHURN * RATE))
assert_between "seconds" "$(jq .seconds <<<"$result")" 0 $((SECONDS_OF_CHURN * SLOW + SECONDS_OF_CHURN / 5))
if [ "$SLOW" = 1 ]; then # allocators of sanitizers keep what is freed
	read -r s0 p0 <<<"$before"
	read -r s1 p1 <<<"$after"
	assert_between "growth of the supervisor, KiB" $((s1 - s0)) -1000000 2048
	assert_between "growth of the proxy, KiB" $((p1 - p0)) -1000000 4096
fi
if [ -z "${SLUICE_SINGLE:-}" ]; then # whose descriptors are connections, too
	assert_eq "descriptors of the supervisor" "$(n_fds "$supervisor")" "$fds"
fi
assert_eq "changes left" "$(jqs .runtime_changes)" 0
assert_eq "routes" "$(sl routes --json | jq -r '[.[].name] | join(" ")')" "web long named"
assert_eq "listening ports" "$(in_ns proxy ss -Hltn '( sport >= :9000 and sport <= :9099 ) or ( sport >= :9300 and sport <= :9399 )' | wc -l)" 0
assert_eq "the unchanged listeners" "$(inodes 8080 8081)" "$ino"
stop_peer load
echo "$RESULT"
assert_eq "failed connections: $RESULT" "$RC" 0
assert_between "connections made" "$(jq .ok <<<"$RESULT")" 100 1000000
stop_peer long
assert_eq "long connections: $RESULT" "$RC" 0
