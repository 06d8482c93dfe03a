// Only for the CRDs that its release holds; nothing is built from it.
module example.org/refit/crds

go 1.24.0

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.4.1
)
