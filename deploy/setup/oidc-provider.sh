#!/bin/sh
# Fetch an identity provider for the tests from npm: oidc-provider.sh VERSION FOLDER leaves it in FOLDER/node_modules.
set -eu
version=$1 folder=$2
if ! command -v npm >/dev/null 2>&1; then
    echo "The identity provider of the tests comes from npm, which is not installed (Debian: apt-get install npm)." >&2
    exit 1
fi
mkdir -p "$folder"
echo "Fetching oidc-provider $version (4 MB) ..."
# No script of a package is run. The folder is a project of its own, so that npm does not look for one above it.
cd "$folder"
[ -e package.json ] || echo '{"private": true}' >package.json
npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts "oidc-provider@$version"
