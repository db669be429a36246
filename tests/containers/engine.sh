#!/usr/bin/env bash
# A Docker engine and a base image for the tests marked `containers`, on a plain Debian machine as root. `.ci/run` calls it.
# Does what is missing only; where an engine cannot run it says why and ends well: the tests then skip, with the reason.
set -euo pipefail

base=tldr-test-base:bookworm

give_up() {
  echo "No container engine: $1. The tests that need one will skip."
  exit 0
}

install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || give_up "$* must be installed, which needs root and apt-get"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

if ! docker info >/dev/null 2>&1; then
  for package in docker.io:dockerd iptables:iptables debootstrap:debootstrap docker-registry:docker-registry; do
    command -v "${package#*:}" >/dev/null || missing="${missing:-} ${package%:*}"
  done
  # shellcheck disable=SC2086  # a list of words
  [ -z "${missing:-}" ] || install $missing
  # numbers that a killed daemon left behind may be those of a zombie or of another process, and stop the next daemon
  ps -C dockerd -o stat= | grep -qv '^Z' || rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
  log=$(mktemp /tmp/dockerd.XXXXXX.log)
  setsid dockerd >"$log" 2>&1 </dev/null &
  for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && break
    sleep 0.5
  done
  docker info >/dev/null 2>&1 || { tail -n 5 "$log"; give_up "dockerd does not start here"; }
fi

if ! docker image inspect "$base" >/dev/null 2>&1; then
  command -v debootstrap >/dev/null || install debootstrap
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  debootstrap --variant=minbase --include=python3,python3-venv,tini,ca-certificates bookworm "$root" >"$root.log" ||
    { tail -n 5 "$root.log"; give_up "debootstrap failed"; }
  tar --directory "$root" --create . | docker import - "$base" >/dev/null
fi
docker version --format 'Docker {{.Server.Version}}'; docker image inspect --format "$base {{.Id}}" "$base"
