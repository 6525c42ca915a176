#!/usr/bin/env bash
# The everyday jobs, before the user's eyes: a cluster, a deployment, scaling, a node port, a new version and back.
#
#   scripts/demo.sh PATH_TO_GANTRY [FLAGS OF gantry up]
set -euo pipefail
gantry=$(realpath "$1")
shift
here=$(cd "$(dirname "$0")/.." && pwd)
bold() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
run() { bold "$@"; "$@"; }
ctl() { bold ctl "$@"; "$gantry" ctl "$@"; }

run "$gantry" up "$@"
for flag in "$@"; do
    case $flag in --data-dir=*) export GANTRY_DATA_DIR=${flag#--data-dir=} ;; esac
done
ctl get nodes -o wide
ctl image load "$here"/.cache/images/{web-v1,web-v2}.tar

ctl apply -f "$here/manifests/web.yml" --wait
ctl get pods -o wide
ctl scale deployment/web --replicas=5
ctl rollout status deployment/web
ctl scale deployment/web --replicas=3

ctl expose deployment/web --name=web-public --type=NodePort --port=80
port=$("$gantry" ctl get service web-public -o jsonpath='{.spec.ports[0].nodePort}')
for _ in 1 2 3 4; do run curl -s "http://127.0.0.1:$port/"; done

ctl set image deployment/web web=web:v2
ctl rollout status deployment/web
run curl -s "http://127.0.0.1:$port/"
ctl rollout history deployment/web
ctl rollout undo deployment/web
ctl rollout status deployment/web
run curl -s "http://127.0.0.1:$port/"
ctl delete service web-public

printf '\nThe cluster runs on. Next: %s ctl get pods -A; stop it with `make down`.\n' "$gantry"
