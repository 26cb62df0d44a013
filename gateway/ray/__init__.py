"""Places the services on a Ray cluster: detached actors, each of which runs `dgx-music serve …` as a child process."""
