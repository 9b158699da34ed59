// Builds the native files that the npm package carries for this platform: node scripts/prebuild.mjs [--force]
//
// prebuilds/PLATFORM-ARCH/ gets the operator library, the Node addon and PROVENANCE.json, which says what they were
// built from and with. The C++ runtime is linked in, so that of the system's libraries only the C library is needed.
// A prebuild that matches the sources is kept; those of other platforms are left alone.
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ortHeaders } from './setup/ort-headers.mjs';
import { hasProgram, run } from './setup/run.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const platform = `${process.platform}-${process.arch}`;
const folder = join(root, 'prebuilds', platform);
const provenance = join(folder, 'PROVENANCE.json');

const SOURCES = ['CMakeLists.txt', 'op/native', 'op/node/addon'];
const LIBRARY = { darwin: 'libort_sigmoid_attention.dylib', win32: 'ort_sigmoid_attention.dll' };
const FILES = [LIBRARY[process.platform] ?? 'libort_sigmoid_attention.so', 'ort_sigmoid_attention_node.node'];

/** @param {string | Buffer} bytes */
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** One digest over names and contents of everything that is compiled. */
function sourceDigest() {
  const paths = SOURCES.flatMap((source) =>
    /\.\w+$/.test(source)
      ? [source]
      : readdirSync(join(root, source), { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length)),
  );
  const lines = paths.sort().map((path) => `${sha256(readFileSync(join(root, path)))}  ${path}\n`);
  return sha256(lines.join(''));
}

/** The newest glibc symbol version that the files ask for; null elsewhere than on Linux. */
function glibcFloor() {
  if (process.platform !== 'linux' || !hasProgram('objdump')) return null;
  const versions = FILES.flatMap((file) =>
    [...run('objdump', ['-T', join(folder, file)]).matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(
      ([, major, minor]) => 1000 * Number(major) + Number(minor),
    ),
  );
  const newest = Math.max(...versions);
  return `${Math.floor(newest / 1000)}.${newest % 1000}`;
}

const sources = sourceDigest();
const isCurrent =
  existsSync(provenance) &&
  JSON.parse(readFileSync(provenance, 'utf8')).sources === sources &&
  FILES.every((file) => existsSync(join(folder, file)));

if (!isCurrent || process.argv.includes('--force')) {
  console.log(`prebuild: building for ${platform}`);
  const build = join(root, 'build/prebuild');
  const linker =
    process.platform === 'linux'
      ? '-static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL -Wl,--gc-sections -s'
      : '';
  run('cmake', [
    ...['-S', root, '-B', build, '-DCMAKE_BUILD_TYPE=Release', '-DSIGMOID_ATTENTION_CUDA=OFF'],
    ...(hasProgram('ninja') && !existsSync(join(build, 'CMakeCache.txt')) ? ['-G', 'Ninja'] : []),
    `-DONNXRUNTIME_INCLUDE_DIR=${ortHeaders(root)}`,
    `-DCMAKE_SHARED_LINKER_FLAGS=${linker}`,
    `-DCMAKE_MODULE_LINKER_FLAGS=${linker}`,
    ...(process.platform === 'win32' ? ['-DCMAKE_MSVC_RUNTIME_LIBRARY=MultiThreaded'] : []),
    ...(process.platform === 'darwin' ? ['-DCMAKE_OSX_DEPLOYMENT_TARGET=13.4'] : []),
  ]);
  run('cmake', ['--build', build, '--config', 'Release', '--parallel', '2']);
  mkdirSync(folder, { recursive: true });
  for (const file of FILES) {
    const built = [build, join(build, 'Release')].map((place) => join(place, file)).find(existsSync);
    copyFileSync(built, join(folder, file));
  }
  const compiler = hasProgram('c++') ? run('c++', ['--version']).split('\n')[0] : 'the default of CMake';
  const commit =
    hasProgram('git') && existsSync(join(root, '.git'))
      ? run('git', ['rev-parse', 'HEAD'], { cwd: root }).trim()
      : null;
  const files = Object.fromEntries(FILES.map((file) => [file, sha256(readFileSync(join(folder, file)))]));
  const record = { platform, commit, sources, compiler, glibc: glibcFloor(), files };
  writeFileSync(provenance, `${JSON.stringify(record, null, 2)}\n`);
}
const { glibc } = JSON.parse(readFileSync(provenance, 'utf8'));
console.log(`prebuild: prebuilds/${platform}${glibc ? ` (needs glibc ${glibc})` : ''}`);
