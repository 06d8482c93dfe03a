#!/usr/bin/env bash
# Refit on kind: `make kind`, `make kind-down`. This file has what is specific to kind; see steps.sh.
set -euo pipefail

# The digest is from the release notes of kind 0.31.0.
: "${KIND_NODE:=kindest/node:v1.34.3@sha256:08497ee19eace7b4b5348db5c6a1591d7752b164530a36f855cb0f2bdcbadd48}"

name=refit
needed_here=(kind "${KIND_EXPERIMENTAL_PROVIDER:-docker}")

create_cluster() {
    if ! kind get clusters --quiet | grep --line-regexp "$name" >/dev/null; then
        kind create cluster --name "$name" --image "$KIND_NODE" --kubeconfig "$KUBECONFIG" --wait 5m
    fi
    kind export kubeconfig --name "$name" --kubeconfig "$KUBECONFIG"
}

load_archive() {
    kind load image-archive "$1" --name "$name"
}

delete_cluster() {
    kind delete cluster --name "$name" --kubeconfig "$KUBECONFIG"
}

# shellcheck source-path=SCRIPTDIR source=steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
main kind "$@"
