// Running programs, Debian packages, and stamps that remember what a stage was last made from.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** A failure that the one sentence in its message explains to the user. */
export class SetupError extends Error {}

/**
 * Runs a program. Its output appears only when it fails or `verbose` is set.
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, verbose?: boolean, env?: NodeJS.ProcessEnv }} [options]
 * @returns {string} what it wrote to stdout (empty when verbose)
 */
export function run(command, args, { cwd, verbose = false, env = process.env } = {}) {
  const result = spawnSync(command, args, {
    cwd,
    env,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: verbose ? 'inherit' : 'pipe',
  });
  if (result.error) throw new SetupError(`cannot run ${command}: ${result.error.message}`);
  if (result.status !== 0) {
    if (!verbose) process.stderr.write(`${lastLines(`${result.stdout}${result.stderr}`)}\n`);
    throw new SetupError(
      `'${command} ${args.join(' ')}' failed (exit code ${result.status ?? result.signal}).`,
    );
  }
  return result.stdout ?? '';
}

/** @param {string} text */
function lastLines(text) {
  return text.trimEnd().split('\n').slice(-80).join('\n');
}

/** @param {string} program */
export function hasProgram(program) {
  return spawnSync('sh', ['-c', `command -v "${program}"`]).status === 0;
}

/**
 * Installs Debian packages where that is possible.
 * @param {string[]} packages
 * @param {string} purpose what they are for, to end the sentence of the error
 */
export function installDebianPackages(packages, purpose) {
  if (!hasProgram('apt-get') || process.getuid?.() !== 0) {
    throw new SetupError(
      `${purpose} needs ${packages.join(', ')} (names of Debian packages); install them, ` +
        'or run this as root on Debian or Ubuntu to have it done.',
    );
  }
  console.log(`setup: installing ${packages.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = ['install', '-y', '--no-install-recommends', ...packages];
  if (spawnSync('apt-get', install, { env }).status !== 0) {
    run('apt-get', ['update'], { env });
    run('apt-get', install, { env });
  }
}

/** @param {...(string | Buffer)} parts */
export function digest(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part).update('\0');
  return hash.digest('hex');
}

/** @param {string} path @param {string} content */
export function stampIs(path, content) {
  try {
    return readFileSync(path, 'utf8') === content;
  } catch {
    return false;
  }
}

/** @param {string} path @param {string} content */
export function writeStamp(path, content) {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, content);
  renameSync(temporary, path);
}
