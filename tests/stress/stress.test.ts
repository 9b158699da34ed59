/** Short forms of the stress scenarios; `npm run stress` runs the long ones. */
import assert from 'node:assert/strict';
import { checkExit, checkMemory, checkWorkers } from './checks.js';

describe('under stress', function () {
  this.timeout(180_000);

  it('memory stays flat over runs', async () => checkMemory('runs', 4000));
  it('memory stays flat over sessions, 32 at a time', async () => checkMemory('sessions', 512));
  it('eight workers may be terminated while they run', async () => {
    const { answers } = await checkWorkers(1);
    assert.ok(answers >= 8);
  });
  it('the process may end while eight sessions run', async () => checkExit(20));
});
