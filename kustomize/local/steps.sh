# From an empty cluster to a recommender that answers, in steps. Sourced by a script that has
# create_cluster, load_archive FILE, delete_cluster and needed_here, a list of programs; that script is
# all that differs between kind, minikube and the test cluster. Every step may be done again.
# shellcheck shell=bash

# What is installed, and from where. Each may be set from outside.
: "${KFP_VERSION:=2.17.2}" "${SELDON_VERSION:=1.19.0}"
upstream=github.com/kubeflow/pipelines/manifests/kustomize
: "${KFP_CLUSTER_SCOPED=$upstream/cluster-scoped-resources?ref=$KFP_VERSION}" # may be empty
: "${KFP_MANIFESTS:=$upstream/env/platform-agnostic?ref=$KFP_VERSION}"
: "${KFP_BACKEND:=2.17}"
: "${SELDON_MANIFESTS:=}" # a file; empty takes Seldon's chart
: "${REFIT_OVERLAY:=}"    # a folder; empty takes the cluster's own of kustomize/overlays
: "${REFIT_STATE:=}"      # a folder; empty takes one in build/
: "${REFIT_CONFIG:=simulated}"
: "${REFIT_ARCHIVES:=}"   # a folder of images; empty builds them
: "${STORE_KEY_ID:=}" "${STORE_KEY:=}"
: "${WAIT_SECONDS:=900}"
: "${PORT_RECOMMENDER:=9000}" "${PORT_REVIEW:=8081}" "${PORT_KUBEFLOW:=8080}"

steps=(
    check_tools create_cluster install_kubeflow install_seldon install_object_store make_secrets
    load_images apply_overlay train open_ports
)
LOG_LINES=20
PAUSE=2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/kustomize/local
doing='' # the step under way
opened=() # processes that keep ports open

# main NAME [down | STEP...] does all steps, or those that are named.
main() {
    local where=$1 step
    shift
    state=${REFIT_STATE:-$root/build/$where}
    mkdir -p "$state"
    export KUBECONFIG=$state/kubeconfig # never the person's own, nor a context that is current there
    overlay=${REFIT_OVERLAY:-$root/kustomize/overlays/$where}
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
        [[ " ${steps[*]} " == *" $step "* ]] || fail "no step $step; steps: ${steps[*]}"
        doing=$step
        printf '\n== %s\n' "${step//_/ }"
        "$step"
    done
    doing=
}

finish() {
    local code=$?
    if ((${#opened[@]})); then
        kill "${opened[@]}" 2>/dev/null || true
        wait "${opened[@]}" 2>/dev/null || true
    fi
    if ((code != 0 && code != 130)) && [[ $doing ]]; then
        tell "stopped at: ${doing//_/ }. The same command goes on from there once that is mended."
    fi
}

tell() { printf '%s\n' "$*" >&2; }

fail() {
    tell "error: $*"
    exit 1
}

# --- the steps ---------------------------------------------------------------------------------

check_tools() {
    local tool missing=()
    # shellcheck disable=SC2154 # the sourcing script's
    for tool in kubectl git "${needed_here[@]}"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [[ $SELDON_MANIFESTS ]] || command -v helm >/dev/null || missing+=(helm)
    ((${#missing[@]} == 0)) || fail "not found: ${missing[*]}. Install them and come back:
  kubectl   https://kubernetes.io/docs/tasks/tools
  kind      https://kind.sigs.k8s.io (0.31 or newer), on docker or podman
  minikube  https://minikube.sigs.k8s.io
  helm      https://helm.sh/docs/intro/install"
    for tool in docker podman; do
        [[ " ${needed_here[*]} " != *" $tool "* ]] || "$tool" info >/dev/null 2>&1 ||
            fail "$tool is here, but its engine does not answer: $tool info says why"
    done
    [[ -x $root/.venv/bin/refit ]] || fail "no environment yet: make setup"
}

install_kubeflow() {
    tell "Kubeflow Pipelines from $KFP_MANIFESTS"
    if [[ $KFP_CLUSTER_SCOPED ]]; then
        apply_kustomization "$KFP_CLUSTER_SCOPED"
        try_for 60 kubectl wait crd --all --for=condition=Established --timeout=30s
    fi
    apply_kustomization "$KFP_MANIFESTS"
    # Recent releases refuse a run under an account that is not named here.
    kubectl -n kubeflow set env deployment/ml-pipeline ALLOWEDSERVICEACCOUNTS=refit-pipeline,refit-monitor
    wait_for kubeflow "Kubeflow Pipelines" deployments_are_ready kubeflow
}

install_seldon() {
    tell "Seldon Core $SELDON_VERSION is under the Business Source License 1.1: trying it out is no" \
        "production use; production use needs a licence from Seldon. overlays/plain does without its operator."
    # The chart makes other certificates each time, so that what it made once is kept.
    local manifests=${SELDON_MANIFESTS:-$state/seldon-$SELDON_VERSION.yaml}
    [[ -s $manifests ]] || make_seldon_manifests "$manifests"
    create_namespace seldon-system
    kubectl apply --server-side --force-conflicts -f "$manifests"
    wait_for seldon-system "Seldon's operator" deployments_are_ready seldon-system
}

install_object_store() {
    kubectl apply --server-side --force-conflicts -f "$here/object-store.yaml"
    if ! kubectl -n storage get secret s3-identities >/dev/null 2>&1; then
        make_store_key
    fi
    wait_for storage "the object store" deployments_are_ready storage
    wait_for storage "bucket refit" bucket_is_there refit
}

# The same key for the recommender and for the steps, which are in Kubeflow's namespace.
make_secrets() {
    local namespace key_id key
    read -r key_id key < <(store_key)
    for namespace in refit kubeflow; do
        create_namespace "$namespace"
        create_secret "$namespace" refit-object-store \
            --from-literal=AWS_ACCESS_KEY_ID="$key_id" --from-literal=AWS_SECRET_ACCESS_KEY="$key"
    done
}

load_images() {
    local archive
    [[ $REFIT_ARCHIVES ]] || "$root/.venv/bin/python" "$root/tools/build_images.py" --save "$archives"
    for archive in "$archives"/*.tar; do
        [[ -e $archive ]] || fail "no image archives in $archives"
        tell "loading $(basename "$archive")"
        load_archive "$archive"
        [[ $REFIT_ARCHIVES ]] || rm "$archive" # gigabytes each
    done
}

apply_overlay() {
    # Seldon's webhook may take a moment longer than its pod.
    try_for 60 kubectl apply --server-side --force-conflicts -k "$overlay"
    wait_for kubeflow "the review page" deployments_are_ready kubeflow
    wait_for refit "the rollout" rollout_is_ready
}

# The first champion; until there is one, the recommender's pods wait for it.
train() {
    sed "s/^backend: .*/backend: \"$KFP_BACKEND\"/" "$here/cluster.yaml" >"$cluster_file"
    if champion_is_there; then
        tell "there is a champion already; another training: refit submit --cluster $cluster_file --wait"
    else
        train_first
    fi
    wait_for refit "the recommender" recommender_answers
}

open_ports() {
    : >"$state/ports"
    open_port refit recommender 9000 "$PORT_RECOMMENDER" "the recommender: POST /api/v1.0/predictions"
    open_port kubeflow review 80 "$PORT_REVIEW" "alerts and their review pages"
    open_port kubeflow ml-pipeline-ui 80 "$PORT_KUBEFLOW" "Kubeflow Pipelines"
    printf '\n'
    cat "$state/ports"
    say_how_to_ask
    tell "open until Ctrl-C"
    wait
}

# --- what they are made of ---------------------------------------------------------------------

# Its name outlives an interruption, so that the run is found again instead of started twice.
train_first() {
    local note=$state/run
    [[ -s $note ]] || date -u +first-training-%Y%m%dT%H%M%S >"$note"
    if ! "$root/.venv/bin/refit" submit continuous_training --config "$REFIT_CONFIG" \
        --cluster "$cluster_file" --run-id "$(<"$note")" --wait; then
        rm "$note"
        say_how_to_ask
        fail "the training did not succeed; what it said is above, and in: refit logs RUN STEP"
    fi
    rm "$note"
}

# Or a candidate, which becomes the first one.
champion_is_there() {
    store_shell "fs.ls /buckets/refit/registry" 2>/dev/null |
        grep --extended-regexp --line-regexp '(champion|candidate)\.json' >/dev/null
}

say_how_to_ask() {
    printf '\nexport KUBECONFIG=%s REFIT_CLUSTER=%s   # for kubectl and refit\n' "$KUBECONFIG" "$cluster_file"
}

# A folder or a URL. Upstream's own manifests lie in several folders side by side.
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

make_seldon_manifests() {
    helm template seldon-core seldon-core-operator --version "$SELDON_VERSION" \
        --repo https://storage.googleapis.com/seldon-charts --namespace seldon-system >"$1.part"
    mv "$1.part" "$1"
}

make_store_key() {
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

# To create one that exists is an error; whether it exists is asked then.
bucket_is_there() {
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

# Seldon's operator has had its say about the present object, and its pods are there.
recommender_answers() {
    local said
    said=$(kubectl -n refit get seldondeployment refit -o jsonpath='{.status.state}' 2>/dev/null) || return
    [[ $said == Available ]] && deployments_are_ready refit
}

# Those whose newest pods are not all ready, and for as long as the Deployment asks.
unready_deployments() {
    kubectl -n "$1" get deployments -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.generation}={.status.observedGeneration} {.spec.replicas}={.status.updatedReplicas} {.spec.replicas}={.status.availableReplicas} {.spec.replicas}={.status.replicas}{"\n"}{end}' |
        awk '{ for (i = 2; i <= NF; i++) { split($i, two, "="); if (two[1] + 0 != two[2] + 0) { print $1; next } } }'
}

# NAME and STATE of the pods that are neither ready nor done; those of a pipeline's steps aside.
unready_pods() {
    kubectl -n "$1" get pods -l '!workflows.argoproj.io/workflow' --no-headers 2>/dev/null |
        awk '{ split($2, ready, "/") } $3 != "Completed" && ready[1] != ready[2] { print $1, $3 }'
}

# wait_for NAMESPACE WHAT COMMAND... repeats the command until it succeeds. What is waited for is told
# as it changes; in the end the pods that are in the way, and what they said last.
wait_for() {
    local namespace=$1 what=$2 end=$((SECONDS + WAIT_SECONDS)) told='' now
    shift 2
    until "$@"; do
        now=$(unready_pods "$namespace")
        if [[ $now && $now != "$told" ]]; then
            tell "waiting for $what: ${now//$'\n'/, }"
            told=$now
        fi
        if ((SECONDS >= end)); then
            explain "$namespace"
            fail "$what is not ready after $WAIT_SECONDS s"
        fi
        sleep "$PAUSE"
    done
    tell "$what: ready"
}

explain() {
    local namespace=$1 pod pod_state
    tell "not ready in $namespace: $(unready_deployments "$namespace" | paste -sd ' ')"
    while read -r pod pod_state; do
        tell "
--- pod $pod in $namespace: $pod_state"
        kubectl -n "$namespace" get events --field-selector "involvedObject.name=$pod" \
            --sort-by=.lastTimestamp -o custom-columns=:.reason,:.message --no-headers | tail -n 5 >&2
        tell "--- its last words"
        kubectl -n "$namespace" logs "$pod" --all-containers --prefix --ignore-errors \
            --tail="$LOG_LINES" 2>&1 | tail -n "$LOG_LINES" >&2
    done < <(unready_pods "$namespace")
}

# try_for SECONDS COMMAND... repeats a command that may fail at first.
try_for() {
    local end=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        ((SECONDS < end)) || fail "$said"
        sleep "$PAUSE"
    done
    printf '%s\n' "$said"
}

# open_port NAMESPACE SERVICE PORT LOCAL WHAT keeps a way open from this machine, if the service is
# there, and notes it.
open_port() {
    local namespace=$1 service=$2 port=$3 local_port=$4 what=$5 log=$state/$2.log end=$((SECONDS + 30))
    if ! kubectl -n "$namespace" get service "$service" >/dev/null 2>&1; then
        return
    fi
    : >"$log"
    keep_forwarding "$namespace" "$service" "$local_port:$port" >>"$log" 2>&1 &
    opened+=($!)
    until grep --quiet '^Forwarding from' "$log"; do
        ((SECONDS < end)) || fail "port $local_port was not opened for $service: $(tail -n 1 "$log")"
        sleep 0.2
    done
    printf '%-24s %s\n' "http://localhost:$local_port" "$what" >>"$state/ports"
}

# A way ends with the pod that it leads to; a new one leads to the pod that took its place.
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
