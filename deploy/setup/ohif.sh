#!/bin/sh
# Fetch the built files of OHIF from npm: ohif.sh VERSION FOLDER leaves them in FOLDER/package/dist.
set -eu
version=$1 folder=$2
if ! command -v npm >/dev/null 2>&1; then
    echo "OHIF comes from npm, which is not installed (Debian: apt-get install npm)." >&2
    exit 1
fi
mkdir -p "$folder"
echo "Fetching OHIF $version (60 MB, 200 MB unpacked) ..."
cd "$folder"
npm pack --silent "@ohif/app@$version" >/dev/null
tar xzf "ohif-app-$version.tgz"
rm "ohif-app-$version.tgz"
