. $(dirname "$0")/../lib/netlab.sh
. $(dirname "$0")/../lib/sockmaplab.sh
server e echo 8001
start_sockmap "" "routes:
$(proute web 8081 "\"$BACKEND_IP:8001\"")
$(route auto 8082 "\"$BACKEND_IP:8001\"")"
client_bg held hold to=$PROXY_IP:8081 n=3 ping=1 timeout=60
wait_for at_least_on sockmap 3
sl engines; sl engines --json; sl status; sl conns; sl conns --json | jq -c '.[0]'; sl flows; sl flows --json | head -c 1500; http_get /metrics | grep -i 'sockmap\|drift\|kernel_flows'; sl explain 8081; sl explain 8081 --json; sl explain 8082 --json; jqs .kernel
bpftool map dump pinned $(bpf_of)/sockmap_flows
bpftool map dump pinned $(bpf_of)/sockmap_targets
bpftool map dump pinned $(bpf_of)/sockmap_sources | head
bpftool map lookup pinned $(bpf_of)/sockmap_slots key 0 0 0 0
time bpftool map dump pinned $(bpf_of)/sockmap_slots >/tmp/f_slots; grep -c state /tmp/f_slots
bpftool map dump pinned $(bpf_of)/sockmap_counters;bpftool map dump pinned $(bpf_of)/sockmap_meta; pinned
sl diff; sl --help | head -40
bpftool prog show pinned $(bpf_of)/sockmap_prog
