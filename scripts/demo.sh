#!/usr/bin/env bash
# The everyday jobs, before the user's eyes: a cluster, a deployment and what one does with it, scaling and repair, a port
# and a name, new versions and the way back.
#
#   scripts/demo.sh PATH_TO_GANTRY [FLAGS OF gantry up]
set -euo pipefail
gantry=$(realpath "$1")
shift
here=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
background=()
clean() {
    for process in "${background[@]}"; do kill "$process" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap clean EXIT

bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
title() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
show() { # as one would type it
    local word line=
    for word in "$@"; do
        case $word in *" "*) word="'$word'" ;; esac
        line+=" $word"
    done
    printf '\n%s$%s%s\n' "$bold" "$line" "$plain"
}
run() { show "$@"; "$@"; }
ctl() { show ctl "$@"; "$gantry" ctl "$@"; }
ask() { "$gantry" ctl "$@"; }
first_pod() { ask get pods -l app=web -o jsonpath='{.items[0].metadata.name}'; }
settle() { # until only so many pods are left, the ending ones gone
    local tries=0
    while [ "$(ask get pods -l app=web -o name | wc -l)" != "$1" ] && [ $((tries++)) -lt 150 ]; do sleep 0.2; done
}

for flag in "$@"; do
    case $flag in --data-dir=*) export GANTRY_DATA_DIR=${flag#--data-dir=} ;; esac
done
run "$gantry" up "$@"
node=$(ask get nodes -o jsonpath='{.items[0].metadata.name}')
address=$(ask get nodes -o jsonpath='{.items[0].status.addresses[0].address}')
# What a demonstration that was interrupted left.
ask uncordon "$node" >/dev/null
ask delete service web-public --ignore-not-found >/dev/null
ctl get nodes
ctl image load "$here"/.cache/images/{web-v1,web-v2}.tar

title "1. Run something, and look at it"
ctl apply -f "$here/manifests/web.yml" --wait
settle 3
ctl get pods -o wide
pod=$(first_pod)
ctl describe pod "$pod"
ctl exec "$pod" -- sh -c 'echo "hello from $(hostname)" >/proc/1/fd/1'
ctl logs "$pod"
echo 'from my machine' >"$scratch/note"
ctl cp "$scratch/note" "$pod:/tmp/note"
ctl exec "$pod" -- cat /tmp/note
show ctl port-forward deployment/web 18080:80 '&'
"$gantry" ctl port-forward deployment/web 18080:80 >"$scratch/forward" &
background+=($!)
timeout 20 sh -c "until grep -q Forwarding '$scratch/forward'; do sleep 0.1; done"
run curl -s http://127.0.0.1:18080/

title "2. More of it, less of it, and what is killed comes back"
ctl scale deployment/web --replicas=5
ctl rollout status deployment/web
ctl scale deployment/web --replicas=3
settle 3
pod=$(first_pod)
restarts=$(ask get pod "$pod" -o jsonpath='{.status.containerStatuses[0].restartCount}')
ctl exec "$pod" -- kill -QUIT 1
ctl wait "pod/$pod" --for="jsonpath={.status.containerStatuses[0].restartCount}=$((restarts + 1))" --timeout=60s
ctl delete pod "$pod"
ctl rollout status deployment/web --timeout=60s
ctl get pods
ctl drain "$node" --ignore-daemonsets
ctl get pods
ctl uncordon "$node"
ctl rollout status deployment/web --timeout=60s

title "3. A port for the world, a name for the other pods"
ctl expose deployment/web --name=web-public --type=NodePort --port=80
port=$(ask get service web-public -o jsonpath='{.spec.ports[0].nodePort}')
timeout 20 sh -c "until curl -s -o '$scratch/answer' http://$address:$port/; do sleep 0.1; done"
for _ in 1 2 3; do run curl -s "http://$address:$port/"; done
run curl -s "http://127.0.0.1:$port/"
ctl exec deployment/web -- wget -q -O - http://web.default.svc.cluster.local/

title "4. A new version under load, a bad one, and the way back"
touch "$scratch/going"
show while true\; do curl -s "http://$address:$port/"\; done '&'
(
    asked=0 failed=0
    while [ -e "$scratch/going" ]; do
        asked=$((asked + 1))
        curl -s -m 5 -o /dev/null "http://$address:$port/" || failed=$((failed + 1))
    done
    echo "$asked requests, $failed failed" >"$scratch/load"
) &
load=$!
ctl set image deployment/web web=127.0.0.1:1/web:v3
ctl rollout status deployment/web --timeout=5s || true
run curl -s "http://$address:$port/"
ctl rollout undo deployment/web
ctl set image deployment/web web=web:v2
ctl rollout status deployment/web --timeout=90s
run curl -s "http://$address:$port/"
ctl rollout history deployment/web
ctl rollout undo deployment/web
ctl rollout status deployment/web --timeout=90s
run curl -s "http://$address:$port/"
rm "$scratch/going"
wait "$load"
printf '\nThe load during all this: %s\n' "$(cat "$scratch/load")"
settle 3
ctl delete service web-public

printf '\nThe cluster runs on. Next: %s ctl get pods -A; stop it with `make down`.\n' "$gantry"
