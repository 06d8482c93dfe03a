"""The cluster's side: settings, compiling for a cluster, submitting, following, scheduling."""
