/**
 * The tests of the Node integration with the library and the addon under AddressSanitizer and UBSan (GCC).
 *
 * Node itself is not built with a sanitizer, so the sanitizers' libraries are preloaded. The tests find native files by the
 * package that they lie in: they run in a copy of the sources, with an instrumented build of its own.
 */
import { cpSync, existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const SOURCES = [
  ...['op', 'cuda', 'wgsl', 'converter', 'tests', 'docs'],
  ...['CMakeLists.txt', 'package.json', 'tsconfig.json', '.mocharc.json'],
];

/** Runs a program and gives what it printed; throws an Error when it fails. */
export type Execute = (command: string, args: readonly string[], env?: NodeJS.ProcessEnv) => string;

/** Builds and runs. Gives mocha's closing line; throws an Error with the sanitizer's report or with the failed test. */
export async function nodeTestsUnderAsan(root: string, execute: Execute): Promise<string> {
  const setup = pathToFileURL(join(root, 'scripts/setup/ort-headers.mjs')).href;
  const { ortHeaders } = (await import(setup)) as { ortHeaders: (root: string) => string };
  const headers = ortHeaders(root);
  const copy = join(root, 'build/node-under-asan');
  mkdirSync(copy, { recursive: true });
  for (const source of SOURCES) cpSync(join(root, source), join(copy, source), { recursive: true });
  if (!existsSync(join(copy, 'node_modules')))
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));

  const build = join(copy, 'build/native');
  execute('cmake', [
    ...['-S', copy, '-B', build, '-DCMAKE_BUILD_TYPE=RelWithDebInfo', '-DSIGMOID_ATTENTION_CUDA=OFF'],
    ...[`-DONNXRUNTIME_INCLUDE_DIR=${headers}`, '-DCMAKE_CXX_COMPILER=g++', '-DCMAKE_C_COMPILER=gcc'],
    '-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=undefined',
  ]);
  execute('cmake', ['--build', build, '--parallel', '2']);

  const runtimes = ['libasan.so', 'libubsan.so'].map((name) =>
    execute('g++', [`-print-file-name=${name}`]).trim(),
  );
  const mocha = [join(copy, 'node_modules/mocha/bin/mocha.js'), join(copy, 'tests/node/*.test.ts')];
  const printed = execute('node', ['--import', 'tsx', ...mocha], {
    LD_PRELOAD: runtimes.join(':'),
    // Leaks are not asked for: Node keeps what it allocated until its end. `memory` above counts them.
    ASAN_OPTIONS: 'detect_leaks=0:exitcode=77',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  });
  return printed.trim().split('\n').at(-1) ?? '';
}
