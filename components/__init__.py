"""What each pipeline step does, one folder a step; a step never imports another."""
