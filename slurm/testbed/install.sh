#!/bin/sh
# Install the Debian packages that the testbed needs and that are missing. Starts none of their services.
set -eu

packages="iproute2 libopenmpi-dev mariadb-server munge openmpi-bin shellcheck slurm-wlm slurmdbd"
policy=/usr/sbin/policy-rc.d

missing=
for package in $packages; do
    if [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
        missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "root is needed to install:$missing" >&2
    exit 1
fi

if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
install() {
    # shellcheck disable=SC2086 # one word each
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $missing
}
install || { apt-get update --quiet && install; }
