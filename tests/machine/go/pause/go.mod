module refit/tests/machine/pause

go 1.24.0
