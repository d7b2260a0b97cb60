# What scripts/test and scripts/demo share: getting what is missing onto the machine. Sourced, not run.
# shellcheck shell=bash

# Those of the Debian packages named that are missing, one a line; none where there is no apt-get.
missing_packages() {
  local package
  command -v apt-get >/dev/null || return 0
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
  done
}

# Installs those of the Debian packages named that are missing: no questions, no output unless it fails, no service started.
install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  echo "installing ${missing[*]}"
  apt_install "${missing[@]}"
}

# In a subshell, so that its trap cleans up however it ends.
apt_install() (
  as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }
  log=$(mktemp) policy=/usr/sbin/policy-rc.d policy_is_ours=
  trap 'rm -f "$log"; [[ -z $policy_is_ours ]] || as_root rm -f "$policy"' EXIT
  # The tests start databases of their own. Debian's packages ask this file whether they may start their services.
  if [[ ! -e $policy ]]; then
    policy_is_ours=1
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
  fi
  {
    as_root apt-get -qq update &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install "$@"
  } >"$log" 2>&1 </dev/null || {
    cat "$log" >&2
    exit 1
  }
)

# The compiler that rust-toolchain.toml names; rustup, by its own installer, if there is no cargo at all.
install_rust() {
  # shellcheck source=/dev/null
  [[ ! -r $HOME/.cargo/env ]] || . "$HOME/.cargo/env"
  if ! command -v cargo >/dev/null; then
    echo "installing rustup"
    install_packages ca-certificates curl
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
      sh -s -- -y --quiet --no-modify-path --profile minimal --default-toolchain none
    # shellcheck source=/dev/null
    . "$HOME/.cargo/env"
  fi
  # rustup fetches a missing toolchain when it is first asked for; elsewhere cargo itself refuses one that is too old.
  cargo --version
}
