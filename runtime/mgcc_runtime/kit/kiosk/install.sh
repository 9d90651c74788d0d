#!/bin/sh
# Installs the kiosk of this kit, without a network: sudo sh kiosk/install.sh, in the kit's folder. Again: an upgrade.
# DESTDIR=DIR writes below DIR and leaves the system alone.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
root=${DESTDIR:-}
home=$root/opt/mgcc-kiosk

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo "install.sh: only root can install; run: sudo sh $0" >&2
    exit 1
fi
browser=${BROWSER:-$(command -v chromium || command -v chromium-browser || true)}
if [ -z "$browser" ]; then
    echo "install.sh: no chromium here, which shows the page; install chromium and cage, then run this again" >&2
    exit 1
fi
(cd "$here" && sha256sum --check --quiet SHA256SUMS)

rm -rf "$home.new"
mkdir -p "$home.new" "$root/etc/systemd/system/mgcc-kiosk.service.d"
python%PYTHON% -m venv --without-pip%SYSTEM% "$home.new/venv"
"$home.new/venv/bin/python" "$here/wheels/%PIP%/pip" install --quiet --no-index --find-links "$here/wheels" \
    'mgcc-edge[%EXTRAS%]'
%PUT_BUNDLE%
# The commands of an environment name its folder: they are made for the place where it will stand.
for command in "$home.new/venv/bin/"*; do
    [ -L "$command" ] || sed -i "1s|$home.new/|/opt/mgcc-kiosk/|" "$command"
done
rm -rf "$home"
mv "$home.new" "$home"

cp "$here/kiosk/mgcc-kiosk.service" "$here/kiosk/mgcc-browser-watch.service" "$here/kiosk/mgcc-browser-watch.timer" \
    "$root/etc/systemd/system/"
sed "s|%BROWSER%|$browser|" "$here/kiosk/mgcc-browser.service" > "$root/etc/systemd/system/mgcc-browser.service"
cp "$here/kiosk/%DEVICE%.conf" "$root/etc/systemd/system/mgcc-kiosk.service.d/"
for policies in etc/chromium/policies/managed etc/chromium-browser/policies/managed; do # Debian's place, and Ubuntu's
    mkdir -p "$root/$policies"
    cp "$here/kiosk/chromium-policies.json" "$root/$policies/mgcc-kiosk.json"
done

[ -z "$root" ] || exit 0
id mgcc-screen > /dev/null 2>&1 || useradd --system --create-home --groups video,render,input mgcc-screen
systemctl daemon-reload
systemctl enable mgcc-kiosk.service mgcc-browser.service mgcc-browser-watch.timer
systemctl restart mgcc-kiosk.service mgcc-browser.service mgcc-browser-watch.timer
echo "install.sh: the kiosk runs; systemctl status mgcc-kiosk says how"
