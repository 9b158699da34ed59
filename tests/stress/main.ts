/**
 * `npm run stress [-- memory threads sanitizers]`: the long forms, minutes each. Prints a line for each; exits with 1 when one
 * fails.
 *
 *   memory      100,000 runs and 3,200 sessions with flat memory
 *   threads     eight workers, ten times; the end of the process during runs, twenty times
 *   sanitizers  the native tests under ASan and UBSan, TSan, and valgrind (GCC or Clang; valgrind where it is installed);
 *               the tests of tests/node with library and addon under ASan and UBSan (GCC)
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { checkExit, checkMemory, checkWorkers } from './checks.js';
import { nodeTestsUnderAsan } from './node-under-asan.js';

const root = join(import.meta.dirname, '../..');

function execute(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): string {
  const options = { encoding: 'utf8', env: { ...process.env, ...env }, maxBuffer: 1 << 28 } as const;
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, options);
  if (error) throw error;
  if (status !== 0)
    throw new Error(`${command} ended with ${status ?? signal}:\n${`${stdout}${stderr}`.slice(-4000)}`);
  return stdout;
}

/** The native tests, built with a sanitizer (or none). */
function nativeTest(sanitizer: string): string {
  const build = join(root, 'build', `native-test-${sanitizer.replace(',', '-') || 'plain'}`);
  const options = sanitizer === '' ? [] : [`-DSANITIZE=${sanitizer}`, '-DCMAKE_BUILD_TYPE=RelWithDebInfo'];
  execute('cmake', ['-S', join(root, 'tests/native'), '-B', build, ...options]);
  execute('cmake', ['--build', build, '--parallel', '2']);
  return join(build, 'sigmoid_attention_cpu_test');
}

const lastLine = (text: string): string => text.trim().split('\n').at(-1) ?? '';

const checks: readonly (readonly [group: string, name: string, check: () => Promise<string> | string])[] = [
  ['memory', '100,000 runs', async () => JSON.stringify(await checkMemory('runs', 100_000))],
  ['memory', '3,200 sessions', async () => JSON.stringify(await checkMemory('sessions', 3200))],
  ['threads', 'terminated workers', async () => JSON.stringify(await checkWorkers(10))],
  ['threads', 'exit during runs', async () => checkExit(0, 20).then(() => '20 processes ended cleanly')],
  ['sanitizers', 'ASan and UBSan', () => lastLine(execute(nativeTest('address,undefined'), ['200']))],
  [
    'sanitizers',
    'TSan',
    () => lastLine(execute(nativeTest('thread'), ['200'], { TSAN_OPTIONS: 'halt_on_error=1' })),
  ],
  [
    'sanitizers',
    'valgrind',
    () => {
      if (spawnSync('valgrind', ['--version']).status !== 0) return 'skipped: valgrind is not installed';
      const options = [
        '--quiet',
        '--error-exitcode=9',
        '--leak-check=full',
        '--errors-for-leak-kinds=definite',
      ];
      return lastLine(execute('valgrind', [...options, nativeTest(''), '20']));
    },
  ],
  ['sanitizers', 'ASan and UBSan in Node', () => nodeTestsUnderAsan(root, execute)],
];

const groups = process.argv.slice(2);
for (const [group, name, check] of checks) {
  if (groups.length > 0 && !groups.includes(group)) continue;
  try {
    console.log(`ok    ${name}: ${await check()}`);
  } catch (error) {
    console.log(`FAIL  ${name}: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
