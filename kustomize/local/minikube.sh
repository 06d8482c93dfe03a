#!/usr/bin/env bash
# Refit on minikube: `make minikube`, `make minikube-down`. This file has what is specific to minikube;
# see steps.sh.
set -euo pipefail

: "${MINIKUBE_KUBERNETES:=v1.34.3}" "${MINIKUBE_CPUS:=4}" "${MINIKUBE_MEMORY:=12g}"

name=refit
needed_here=(minikube)

# `minikube start` starts a stopped cluster and does not change a running one.
create_cluster() {
    minikube start --profile "$name" --kubernetes-version "$MINIKUBE_KUBERNETES" \
        --container-runtime containerd --cni calico --addons metrics-server \
        --cpus "$MINIKUBE_CPUS" --memory "$MINIKUBE_MEMORY" --disk-size 60g
    minikube update-context --profile "$name"
}

load_archive() {
    minikube image load "$1" --profile "$name"
}

delete_cluster() {
    minikube delete --profile "$name"
}

# shellcheck source-path=SCRIPTDIR source=steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
main minikube "$@"
