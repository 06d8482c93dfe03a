# The steps from an empty cluster to a recommender that answers. Each step may be repeated. A script
# that sources this file defines create_cluster, load_archive FILE, delete_cluster and needed_here, a
# list of programs; kind, minikube and the test cluster differ only in that script.
# shellcheck shell=bash

# Versions, sources and settings; environment variables override them.
: "${KFP_VERSION:=2.17.2}" "${SELDON_VERSION:=1.19.0}"
upstream=github.com/kubeflow/pipelines/manifests/kustomize
: "${KFP_CLUSTER_SCOPED=$upstream/cluster-scoped-resources?ref=$KFP_VERSION}" # may be empty
: "${KFP_MANIFESTS:=$upstream/env/platform-agnostic?ref=$KFP_VERSION}"
: "${KFP_BACKEND:=${KFP_VERSION%.*}}" # backend in the cluster file: 2.17, 2.16 or 2.0
: "${SELDON_MANIFESTS:=}"             # a file; if empty, Seldon's chart
: "${REFIT_OVERLAY:=}"                # a folder; if empty, the one in kustomize/overlays
: "${REFIT_STATE:=}"                  # a folder; if empty, one in build/
: "${REFIT_CONFIG:=simulated}"
: "${REFIT_ARCHIVES:=}"               # a folder of image archives; if empty, they are built
: "${STORE_KEY_ID:=}" "${STORE_KEY:=}"
: "${WAIT_SECONDS:=900}"
: "${PORT_RECOMMENDER:=9000}" "${PORT_REVIEW:=8081}" "${PORT_KUBEFLOW:=8080}"

steps=(
    check_tools create_cluster install_kubeflow install_seldon install_object_store create_secrets
    load_images apply_overlay train open_ports
)
LOG_LINES=20
PAUSE=2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/kustomize/local
running='' # the current step
forwarders=() # processes that forward ports

# main PLATFORM [down | STEP...] runs all steps, or the given ones.
main() {
    local platform=$1 step
    shift
    state=${REFIT_STATE:-$root/build/$platform}
    mkdir -p "$state"
    export KUBECONFIG=$state/kubeconfig # the user's own kubeconfig and its context are not changed
    overlay=${REFIT_OVERLAY:-$root/kustomize/overlays/$platform}
    archives=${REFIT_ARCHIVES:-$state/images}
    cluster_file=$state/cluster.yaml

    trap finish EXIT
    trap 'exit 130' INT TERM
    if [[ ${1:-} == down ]]; then
        delete_cluster
        rm -rf "$state"
        return
    fi
    for step in "${@:-${steps[@]}}"; do
        [[ " ${steps[*]} " == *" $step "* ]] || fail "unknown step $step; steps: ${steps[*]}"
        running=$step
        printf '\n== %s\n' "${step//_/ }"
        "$step"
    done
    running=
}

finish() {
    local code=$?
    if ((${#forwarders[@]})); then
        kill "${forwarders[@]}" 2>/dev/null || true
        wait "${forwarders[@]}" 2>/dev/null || true
    fi
    if ((code != 0 && code != 130)) && [[ $running ]]; then
        log "failed in step: ${running//_/ }. Fix the cause and run the same command again to continue."
    fi
}

log() { printf '%s\n' "$*" >&2; }

fail() {
    log "error: $*"
    exit 1
}

# --- the steps ---------------------------------------------------------------------------------

check_tools() {
    local tool missing=()
    # shellcheck disable=SC2154 # defined by the sourcing script
    for tool in kubectl git "${needed_here[@]}"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [[ $SELDON_MANIFESTS ]] || command -v helm >/dev/null || missing+=(helm)
    ((${#missing[@]} == 0)) || fail "not found: ${missing[*]}. Install them and run the command again:
  kubectl   https://kubernetes.io/docs/tasks/tools
  kind      https://kind.sigs.k8s.io (0.31 or newer), on docker or podman
  minikube  https://minikube.sigs.k8s.io
  helm      https://helm.sh/docs/intro/install"
    for tool in docker podman; do
        [[ " ${needed_here[*]} " != *" $tool "* ]] || "$tool" info >/dev/null 2>&1 ||
            fail "$tool is installed, but its engine does not respond: see $tool info"
    done
    [[ -x $root/.venv/bin/refit ]] || fail "the Python environment is missing: run make setup"
}

install_kubeflow() {
    log "Kubeflow Pipelines from $KFP_MANIFESTS"
    if [[ $KFP_CLUSTER_SCOPED ]]; then
        apply_kustomization "$KFP_CLUSTER_SCOPED"
        retry_for 60 kubectl wait crd --all --for=condition=Established --timeout=30s
    fi
    apply_kustomization "$KFP_MANIFESTS"
    # Recent releases reject runs with a service account that is not listed here.
    kubectl -n kubeflow set env deployment/ml-pipeline ALLOWEDSERVICEACCOUNTS=refit-pipeline,refit-monitor
    wait_for kubeflow "Kubeflow Pipelines" deployments_are_ready kubeflow
}

install_seldon() {
    log "Seldon Core $SELDON_VERSION is under the Business Source License 1.1: production use requires a" \
        "licence from Seldon; a trial is not production use. overlays/plain does not use Seldon's operator."
    # The chart generates new certificates each time, so its first output is kept.
    local manifests=${SELDON_MANIFESTS:-$state/seldon-$SELDON_VERSION.yaml}
    [[ -s $manifests ]] || render_seldon_chart "$manifests"
    create_namespace seldon-system
    kubectl apply --server-side --force-conflicts -f "$manifests"
    wait_for seldon-system "Seldon's operator" deployments_are_ready seldon-system
}

install_object_store() {
    kubectl apply --server-side --force-conflicts -f "$here/object-store.yaml"
    if ! kubectl -n storage get secret s3-identities >/dev/null 2>&1; then
        create_store_key
    fi
    wait_for storage "the object store" deployments_are_ready storage
    wait_for storage "bucket refit" bucket_exists refit
}

# The same key for the recommender and for the steps, which run in Kubeflow's namespace.
create_secrets() {
    local namespace key_id key
    read -r key_id key < <(store_key)
    for namespace in refit kubeflow; do
        create_namespace "$namespace"
        create_secret "$namespace" refit-object-store \
            --from-literal=AWS_ACCESS_KEY_ID="$key_id" --from-literal=AWS_SECRET_ACCESS_KEY="$key"
    done
    if ! kubectl -n kubeflow get secret refit-review >/dev/null 2>&1; then
        create_secret kubeflow refit-review --from-literal=tokens="on-call me $(random_key)"
    fi
}

load_images() {
    local archive
    [[ $REFIT_ARCHIVES ]] || "$root/.venv/bin/python" "$root/tools/build_images.py" main serving --save "$archives"
    for archive in "$archives"/*.tar; do
        [[ -e $archive ]] || fail "no image archives in $archives"
        log "loading $(basename "$archive")"
        load_archive "$archive"
        [[ $REFIT_ARCHIVES ]] || rm "$archive" # gigabytes each
    done
}

apply_overlay() {
    # Seldon's webhook may need longer than its pod to become ready.
    retry_for 60 kubectl apply --server-side --force-conflicts -k "$overlay"
    wait_for kubeflow "the review application" deployments_are_ready kubeflow
    wait_for refit "the rollout" rollout_is_ready
}

# Train the first champion; until there is one, the recommender's pods wait for it.
train() {
    sed "s/^backend: .*/backend: \"$KFP_BACKEND\"/" "$here/cluster.yaml" >"$cluster_file"
    if champion_exists; then
        log "there is already a champion; to train another: refit submit --cluster $cluster_file --wait"
    else
        train_first
    fi
    wait_for refit "the recommender" recommender_is_available
}

open_ports() {
    : >"$state/ports"
    open_port refit recommender 9000 "$PORT_RECOMMENDER" "the recommender: POST /api/v1.0/predictions"
    open_port kubeflow review 80 "$PORT_REVIEW" "the review application; its token: $(review_token)"
    open_port kubeflow ml-pipeline-ui 80 "$PORT_KUBEFLOW" "Kubeflow Pipelines"
    printf '\n'
    cat "$state/ports"
    print_exports
    log "open until Ctrl-C"
    wait
}

# --- helpers -----------------------------------------------------------------------------------

# The run's name is stored, so that an interrupted step finds its run instead of starting another.
train_first() {
    local name_file=$state/run
    [[ -s $name_file ]] || date -u +first-training-%Y%m%dT%H%M%S >"$name_file"
    if ! "$root/.venv/bin/refit" submit continuous_training --first-model --config "$REFIT_CONFIG" \
        --cluster "$cluster_file" --run-id "$(<"$name_file")" --wait; then
        rm "$name_file"
        print_exports
        fail "the training failed; see the messages above, and: refit logs RUN STEP"
    fi
    rm "$name_file"
}

# Whether there is a champion, or a candidate, which becomes the first champion.
champion_exists() {
    store_shell "fs.ls /buckets/refit/registry" 2>/dev/null |
        grep --extended-regexp --line-regexp '(champion|candidate)\.json' >/dev/null
}

print_exports() {
    printf '\nexport KUBECONFIG=%s REFIT_CLUSTER=%s   # for kubectl and refit\n' "$KUBECONFIG" "$cluster_file"
}

# Takes a folder or a URL. Upstream's kustomizations refer to files outside of their own folders.
apply_kustomization() {
    kubectl kustomize --load-restrictor LoadRestrictionsNone "$1" | kubectl apply -f -
}

create_namespace() {
    kubectl get namespace "$1" >/dev/null 2>&1 || kubectl create namespace "$1"
}

create_secret() {
    local namespace=$1 name=$2
    shift 2
    kubectl -n "$namespace" create secret generic "$name" "$@" --dry-run=client -o yaml |
        kubectl apply --server-side --force-conflicts -f -
}

render_seldon_chart() {
    helm template seldon-core seldon-core-operator --version "$SELDON_VERSION" \
        --repo https://storage.googleapis.com/seldon-charts --namespace seldon-system >"$1.part"
    mv "$1.part" "$1"
}

create_store_key() {
    local key_id=${STORE_KEY_ID:-refit} key=${STORE_KEY:-$(random_key)}
    create_secret storage s3-identities --from-literal=key_id="$key_id" --from-literal=key="$key" \
        --from-literal=identities.json="{\"identities\": [{\"name\": \"refit\",
            \"credentials\": [{\"accessKey\": \"$key_id\", \"secretKey\": \"$key\"}],
            \"actions\": [\"Admin\", \"Read\", \"Write\", \"List\", \"Tagging\"]}]}"
}

random_key() { od -An -N 20 -tx1 /dev/urandom | tr -d ' \n'; }

store_key() {
    kubectl -n storage get secret s3-identities \
        -o go-template='{{.data.key_id | base64decode}} {{.data.key | base64decode}}{{"\n"}}'
}

review_token() {
    kubectl -n kubeflow get secret refit-review -o go-template='{{.data.tokens | base64decode}}' |
        awk '{print $3}'
}

# Creating an existing bucket fails, so the result is checked with a list.
bucket_exists() {
    store_shell "s3.bucket.create -name $1" >/dev/null 2>&1 || true
    store_shell s3.bucket.list 2>/dev/null | grep "^ *$1\b" >/dev/null
}

store_shell() { kubectl -n storage exec -i deployment/s3 -- /usr/bin/weed shell <<<"$1"; }

deployments_are_ready() {
    [[ -z $(unready_deployments "$1") ]]
}

rollout_is_ready() {
    ! unready_deployments refit | grep --line-regexp rollout >/dev/null
}

recommender_is_available() {
    local status
    status=$(kubectl -n refit get seldondeployment refit -o jsonpath='{.status.state}' 2>/dev/null) || return
    [[ $status == Available ]] && deployments_are_ready refit
}

# Names of Deployments whose pods are not all up to date and available.
unready_deployments() {
    kubectl -n "$1" get deployments -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.generation}={.status.observedGeneration} {.spec.replicas}={.status.updatedReplicas} {.spec.replicas}={.status.availableReplicas} {.spec.replicas}={.status.replicas}{"\n"}{end}' |
        awk '{ for (i = 2; i <= NF; i++) { split($i, two, "="); if (two[1] + 0 != two[2] + 0) { print $1; next } } }'
}

# NAME and STATE of pods that are neither ready nor completed, except the pods of pipeline steps.
unready_pods() {
    kubectl -n "$1" get pods -l '!workflows.argoproj.io/workflow' --no-headers 2>/dev/null |
        awk '{ split($2, ready, "/") } $3 != "Completed" && ready[1] != ready[2] { print $1, $3 }'
}

# wait_for NAMESPACE WHAT COMMAND... repeats the command until it succeeds. It logs the unready pods when
# they change; after the timeout it describes them with their last events and log lines.
wait_for() {
    local namespace=$1 what=$2 end=$((SECONDS + WAIT_SECONDS)) last='' now
    shift 2
    until "$@"; do
        now=$(unready_pods "$namespace")
        if [[ $now && $now != "$last" ]]; then
            log "waiting for $what: ${now//$'\n'/, }"
            last=$now
        fi
        if ((SECONDS >= end)); then
            describe_unready "$namespace"
            fail "$what is not ready after $WAIT_SECONDS s"
        fi
        sleep "$PAUSE"
    done
    log "$what: ready"
}

describe_unready() {
    local namespace=$1 pod pod_state
    log "not ready in $namespace: $(unready_deployments "$namespace" | paste -sd ' ')"
    while read -r pod pod_state; do
        log "
--- pod $pod in $namespace: $pod_state"
        kubectl -n "$namespace" get events --field-selector "involvedObject.name=$pod" \
            --sort-by=.lastTimestamp -o custom-columns=:.reason,:.message --no-headers | tail -n 5 >&2
        log "--- end of its log"
        kubectl -n "$namespace" logs "$pod" --all-containers --prefix --ignore-errors \
            --tail="$LOG_LINES" 2>&1 | tail -n "$LOG_LINES" >&2
    done < <(unready_pods "$namespace")
}

# retry_for SECONDS COMMAND... repeats a command that may fail at first.
retry_for() {
    local end=$((SECONDS + $1)) output
    shift
    until output=$("$@" 2>&1); do
        ((SECONDS < end)) || fail "$output"
        sleep "$PAUSE"
    done
    printf '%s\n' "$output"
}

# open_port NAMESPACE SERVICE PORT LOCAL WHAT forwards a local port to a service, if it exists, and adds
# it to the list of ports.
open_port() {
    local namespace=$1 service=$2 port=$3 local_port=$4 what=$5 log=$state/$2.log end=$((SECONDS + 30))
    if ! kubectl -n "$namespace" get service "$service" >/dev/null 2>&1; then
        return
    fi
    : >"$log"
    keep_forwarding "$namespace" "$service" "$local_port:$port" >>"$log" 2>&1 &
    forwarders+=($!)
    until grep --quiet '^Forwarding from' "$log"; do
        ((SECONDS < end)) || fail "port $local_port could not be opened for $service: $(tail -n 1 "$log")"
        sleep 0.2
    done
    printf '%-24s %s\n' "http://localhost:$local_port" "$what" >>"$state/ports"
}

# kubectl port-forward ends with its pod; it is restarted and then forwards to the new pod.
keep_forwarding() {
    local forwarder=
    trap 'kill "$forwarder" 2>/dev/null; wait "$forwarder"; exit' TERM
    while true; do
        kubectl -n "$1" port-forward "service/$2" "$3" &
        forwarder=$!
        wait "$forwarder" || true
        sleep 1
    done
}
