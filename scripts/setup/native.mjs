// Stages native and cuda: CMake configures and builds into build/native.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { ortHeaders } from './ort-headers.mjs';
import { SetupError, digest, hasProgram, installDebianPackages, run, stampIs, writeStamp } from './run.mjs';

const TOOLS = [
  { program: 'cmake', debian: 'cmake' },
  { program: 'c++', debian: 'g++' },
  { program: 'ninja', debian: 'ninja-build' },
];

const SOURCES = ['CMakeLists.txt', 'op/native', 'op/node/addon', 'cuda/sigmoid_attention.h'];

/** @param {string} path @returns {string[]} */
function files(path) {
  if (!existsSync(path)) return [];
  const entries = readdirSync(path, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

/** Everything that decides what the build makes. @param {string} root */
function state(root) {
  const paths = SOURCES.flatMap((source) =>
    /\.\w+$/.test(source) ? [join(root, source)].filter(existsSync) : files(join(root, source)),
  ).sort();
  const compiler = hasProgram('c++') ? run('c++', ['--version']) : '';
  return digest(root, process.version, compiler, ...paths.flatMap((path) => [path, readFileSync(path)]));
}

/** @param {string} root @param {string[]} extra */
function configure(root, extra) {
  const missing = TOOLS.filter(({ program }) => !hasProgram(program)).map(({ debian }) => debian);
  if (missing.length > 0) installDebianPackages(missing, 'building the native library');
  const build = join(root, 'build/native');
  const cache = join(build, 'CMakeCache.txt');
  const options = [`-DONNXRUNTIME_INCLUDE_DIR=${ortHeaders(root)}`, '-DCMAKE_BUILD_TYPE=Release', ...extra];
  run('cmake', ['-S', root, '-B', build, ...(existsSync(cache) ? [] : ['-G', 'Ninja']), ...options]);
  return build;
}

/** @param {string} build @param {string[]} args */
function compile(build, args) {
  run('cmake', ['--build', build, '--parallel', String(availableParallelism()), ...args]);
}

/** @param {string} root */
export function buildNative(root) {
  const stamp = join(root, 'build/native/.setup-stamp');
  const library = process.platform === 'win32' ? 'ort_sigmoid_attention.dll' : 'libort_sigmoid_attention';
  const built = existsSync(join(root, 'build/native'))
    ? readdirSync(join(root, 'build/native')).some((name) => name.startsWith(library))
    : false;
  const before = state(root);
  if (built && stampIs(stamp, before)) return;
  console.log('setup: building the native library');
  compile(configure(root, ['-DSIGMOID_ATTENTION_CUDA=OFF']), []);
  writeStamp(stamp, state(root));
}

/** @param {string} root */
export function buildCuda(root) {
  if (!hasProgram('nvcc') && !existsSync('/usr/local/cuda/bin/nvcc')) {
    throw new SetupError('building the CUDA library needs nvcc (the CUDA toolkit, 12.4 or newer) on PATH.');
  }
  console.log('setup: building the CUDA library (takes minutes)');
  compile(configure(root, ['-DSIGMOID_ATTENTION_CUDA=ON']), ['--target', 'ort_sigmoid_attention_cuda']);
}
