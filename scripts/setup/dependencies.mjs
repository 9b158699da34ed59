// Stage deps: `npm ci` unless node_modules already is what package-lock.json asks for.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './run.mjs';

/**
 * npm writes what it installed to node_modules/.package-lock.json; it is compared package by package, so that an
 * `npm install` by hand counts as well as an `npm ci` of ours.
 * @param {string} root
 */
function isInstalled(root) {
  const installedPath = join(root, 'node_modules/.package-lock.json');
  if (!existsSync(installedPath)) return false;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(installedPath, 'utf8')).packages;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '' || entry.link) return true;
    if (installed[path]) return installed[path].version === entry.version && existsSync(join(root, path));
    return entry.optional === true || entry.peer === true;
  });
}

/** @param {string} root */
export function installDependencies(root) {
  if (isInstalled(root)) return;
  console.log('setup: installing npm packages');
  run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: root });
}
