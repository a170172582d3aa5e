. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
server e echo 8001
start_sockmap "" "routes:
$(proute web 8081 "\"$BACKEND_IP:8001\"")"
for i in 1 2 3 4 5 6 7 8 9 10; do
a=$(now_ms)
client_bg held$i hold to=$PROXY_IP:8081 n=1500 c=32 ping=1 timeout=60
wait_until 15000 has_output held$i || { sl conns --json | jq -c '[.[]|select(.bytes_down==0)]|.[:5][]'; sockmaps slots | head -c 3000; fail stuck; }
echo $(( $(now_ms) - a )) ms $(moves)
stop_peer held$i
done
