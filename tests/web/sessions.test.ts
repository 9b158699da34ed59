/** Converted models as onnxruntime-web sessions in a real browser, compared with WASM and the portable function. */

import { strict as assert } from 'node:assert';
import type { gpuResources } from '../../op/web/index.js';
import { missingBrowser, openTestPage, type TestPage } from './browser.js';

/** Two float32 implementations of the same layers. */
const CLOSE = 2e-5;

const LAYERS = { layers: 3, heads: 2, headSize: 16 };
/** How many pieces of four the runtime runs in each of the runs; the third also runs what it recorded, to compare. */
const REPETITIONS = [
  {
    name: 'a model of floats',
    model: { ...LAYERS, presents: true },
    seeds: [1, 2, 3, 4, 5, 6],
    pieces: [4, 4, 4, 0, 0, 0],
  },
  {
    name: 'masked attention',
    model: { ...LAYERS, masked: true },
    seeds: [1, 2, 3, 4, 5],
    pieces: [4, 4, 4, 0, 0],
  },
  {
    name: 'a model with token numbers, whose first piece stays with the runtime',
    model: { ...LAYERS, embedded: true, reshaped: true },
    seeds: [1, 2, 3, 4, 5],
    pieces: [4, 4, 5, 1, 1],
  },
  {
    name: 'a model that depends on values in CPU memory, as long as these are the same',
    model: { ...LAYERS, shifted: true },
    seeds: [1, 4, 7, 10, 2, 13],
    pieces: [4, 4, 5, 1, 5, 1],
  },
];

if (missingBrowser !== undefined) describe.skip(`sessions in Chromium (${missingBrowser})`, () => undefined);
else {
  describe('sessions in Chromium', function () {
    this.timeout(180_000);
    let page: TestPage;
    before(async () => (page = await openTestPage()));
    after(() => page.close());

    it('yields what WASM yields, for every output of a model of several layers', async () => {
      for (const model of [
        { layers: 3, heads: 2, headSize: 16 },
        { layers: 2, heads: 3, headSize: 20, masked: true, presents: true },
        { layers: 3, heads: 2, headSize: 16, presents: true, unnamed: true },
      ]) {
        const differences = await page.run<Record<string, number>>('differences', { model, length: 37 });
        for (const [name, difference] of Object.entries(differences))
          assert.ok(difference < CLOSE, `${name} differs by ${difference}`);
      }
    });

    it('takes and returns GPU buffers', async () => {
      for (const [runs, copyable] of [
        [1, true],
        [6, true],
        [6, false],
      ]) {
        const { locations, differences } = await page.run<{ locations: string[]; differences: number[] }>(
          'gpuBuffers',
          { runs, copyable },
        );
        assert.deepEqual(locations, ['gpu-buffer', 'gpu-buffer', 'cpu', 'gpu-buffer']);
        assert.ok(Math.max(...differences) < CLOSE, `differences ${differences.join()}`);
      }
    });

    it('describes inputs and outputs as the runtime does', async () => {
      const { ours, stock } = await page.run<Record<'ours' | 'stock', unknown>>('metadata');
      assert.deepEqual(ours, stock);
    });

    it('reads models and external data from bytes, URLs and Blobs', async () => {
      for (const [way, difference] of Object.entries(await page.run<Record<string, number>>('sources')))
        assert.ok(difference < CLOSE, `${way} differs by ${difference}`);
    });

    it('keeps overlapping calls apart', async () => {
      for (const difference of await page.run<number[]>('concurrency')) assert.ok(difference < CLOSE);
    });

    for (const { name, model, seeds, pieces } of REPETITIONS)
      it(`repeats runs of ${name}`, async () => {
        const found = await page.run<{
          pieces: number[];
          atOnce: number;
          differences: number[];
          replays: number;
        }>('repetition', { model, seeds });
        assert.deepEqual(found.pieces, pieces);
        assert.equal(found.replays, 2, 'of both models that were installed for');
        assert.ok(Math.max(...found.differences) < CLOSE, `differences ${found.differences.join()}`);
      });

    it('chooses per sequence length between kernels and function', async () => {
      const rule = { functionBelow: 16 * 16, lengths: [8, 8, 40, 40, 8] };
      for (const difference of await page.run<number[]>('shortSequences', rule))
        assert.ok(difference < CLOSE, `differs by ${difference}`);
    });

    it('measures both ways for short sequences, and gives the same results on the way', async () => {
      const lengths = [...new Array<number>(12).fill(8), 40, ...new Array<number>(3).fill(8)];
      for (const options of [{}, { tag: 'left to the runtime' }])
        for (const difference of await page.run<number[]>('shortSequences', { lengths, options }))
          assert.ok(difference < CLOSE, `differs by ${difference}`);
    });

    it('refuses with rejected promises that say why, and goes on', async () => {
      const messages = await page.run<Record<string, string>>('refusals');
      assert.match(messages['graphCapture']!, /enableGraphCapture is true; it must be false/);
      assert.match(
        messages['missingFile']!,
        /no-such-model\.onnx' could not be fetched: the server answered 404/,
      );
      assert.match(messages['noModel']!, /Can't create a session/);
      assert.match(messages['missingFeed']!, /input 'x' is missing/);
      assert.match(messages['wrongOutput']!, /invalid output name: z/);
      assert.equal(messages['afterFailure'], 'not refused');
      assert.match(messages['afterRelease']!, /released/);
    });

    it('holds no more buffers after 1,000 runs than after 100, and none after the release', async () => {
      const { ours, onDevice, after } = await page.run<{
        ours: number[];
        onDevice: number[];
        after: ReturnType<typeof gpuResources>;
      }>('leaks', { runs: 1000 });
      assert.equal(ours[1], ours[0]);
      assert.equal(onDevice[1], onDevice[0]);
      assert.deepEqual(after, { buffers: 0, pipelines: 0, uniforms: 0, scratchBytes: 0, replays: 0 });
    });

    it('rejects when the device is lost', async () => {
      assert.match(
        await page.run<string>('deviceLoss', { runs: 5 }),
        /the WebGPU device was lost .*create the session again/,
      );
    });
  });

  describe('sessions in Chromium without WebGPU', function () {
    this.timeout(120_000);
    let page: TestPage;
    before(async () => (page = await openTestPage()));
    after(() => page.close());

    it('run the portable function on WASM and say so once', async () => {
      const difference = await page.run<number>('withoutWebGpu');
      assert.ok(difference < CLOSE, `differs by ${difference}`);
      const told = page.console.filter((line) => line.includes('portable function on WASM'));
      assert.equal(told.length, 1, page.console.join('\n'));
    });
  });
}
