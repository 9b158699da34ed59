/** The command line as users meet it: exit codes, one clear sentence for every mistake, JSON forms, nothing left behind. */
import assert from 'node:assert/strict';
import { mkdtemp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { zipSync } from 'fflate';
import { npy } from '../data/npy-writer.js';
import { runCli } from './run-cli.js';
import { attentionModel, classifierModel, mistypedModel, withExternalData } from './small-models.js';

describe('command line', function () {
  this.timeout(60_000);
  let folder: string;
  const at = (name: string): string => path.join(folder, name);

  beforeEach(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'cli-'));
    await writeFile(at('softmax.onnx'), attentionModel({ layers: 2 }));
    await writeFile(at('sigmoid.onnx'), attentionModel({ activation: 'Sigmoid' }));
    await writeFile(at('classifier.onnx'), classifierModel());
  });
  afterEach(() => rm(folder, { recursive: true }));

  const inputs = ['classifier.onnx', 'sigmoid.onnx', 'softmax.onnx'];
  const convert = (model: string, mode: string, ...more: string[]): ReturnType<typeof runCli> =>
    runCli('convert', at(model), '-o', at('out.onnx'), '--mode', mode, ...more);

  interface ConvertJson {
    replaced: number;
    refused: { name: string; reason: string }[];
    output: string | null;
    verify: { passed: boolean; drift: { maxRelative: number }[]; structure: { maxRelative: number }[] };
    sites: { attributes: Record<string, number> }[];
    calibration: { sites: { error: number; paperError: number; kept: boolean }[] };
  }

  it('inspects: table and JSON', async () => {
    const text = await runCli('inspect', at('softmax.onnx'));
    assert.equal(text.code, 0, text.stderr);
    assert.match(text.stdout, /softmax\s+2\s+4\s+0\.5\s+none/);
    const json = await runCli('inspect', at('softmax.onnx'), '--json');
    const { sites } = JSON.parse(json.stdout) as { sites: Record<string, unknown>[] };
    assert.equal(sites.length, 2);
    assert.equal(sites[0]!['kind'], 'softmax');
    assert.equal(sites[0]!['replaceable'], true);
    assert.equal(sites[0]!['reason'], null);
    assert.equal(sites[0]!['heads'], 2);
    assert.equal(sites[0]!['headSize'], 4);
    const none = await runCli('inspect', at('classifier.onnx'));
    assert.equal(none.code, 0, none.stderr);
    assert.match(none.stdout, /No attention found/);
  });

  it('converts faithfully, verifies, and verifies again from files', async () => {
    const { code, stdout, stderr } = await convert('softmax.onnx', 'faithful', '--json');
    assert.equal(code, 0, stderr);
    const result = JSON.parse(stdout) as ConvertJson;
    assert.equal(result.replaced, 2);
    assert.deepEqual(result.refused, []);
    assert.equal(result.output, at('out.onnx'));
    assert.equal(result.verify.passed, true);
    assert.ok(result.verify.drift[0]!.maxRelative < 1e-4, String(result.verify.drift[0]!.maxRelative));
    assert.deepEqual((await readdir(folder)).sort(), [...inputs, 'out.onnx'].sort());
    const verified = await runCli('verify', at('softmax.onnx'), at('out.onnx'), '--json');
    assert.equal(verified.code, 0, verified.stderr);
    assert.equal((JSON.parse(verified.stdout) as { passed: boolean }).passed, true);
  });

  it('leaves softmax where scores lie too far apart for a faithful bias, and says so', async () => {
    await writeFile(at('far.onnx'), attentionModel({ layers: 2, sharpness: [300, 1], seed: 3 }));
    const { code, stdout, stderr } = await convert('far.onnx', 'faithful', '--report', at('report.html'));
    assert.equal(code, 0, stderr);
    assert.match(stdout, /Replaced 1 of 2 attention sites/);
    assert.match(
      stdout,
      /kept weights_0: the scores lie too far apart .*head \d: rows whose largest scores go from .* leave the window/,
    );
    assert.match(stdout, /✔ verified/);
    assert.match(await readFile(at('report.html'), 'utf8'), /score-range.*leave the window/);
    const json = JSON.parse((await convert('far.onnx', 'faithful', '--json')).stdout) as ConvertJson;
    assert.deepEqual(
      json.refused.map(({ name, reason }) => [name, reason]),
      [['weights_0', 'score-range']],
    );
    assert.ok(json.verify.drift[0]!.maxRelative < 1e-4, String(json.verify.drift[0]!.maxRelative));
  });

  it('has nothing to convert where every site has to stay softmax', async () => {
    await writeFile(at('far.onnx'), attentionModel({ sharpness: 300, seed: 3 }));
    const { code, stderr } = await convert('far.onnx', 'faithful');
    assert.equal(code, 3);
    assert.match(stderr, /nothing to convert .*weights_0: the scores lie too far apart .*leave the window/);
    assert.ok(!(await readdir(folder)).includes('out.onnx'));
  });

  it('fuses a sigmoid model', async () => {
    const { code, stdout, stderr } = await convert('sigmoid.onnx', 'fuse');
    assert.equal(code, 0, stderr);
    assert.match(stdout, /Replaced 1 of 1 attention sites/);
    assert.match(stdout, /✔ verified/);
  });

  it('keeps the numbers of a sigmoid model in the modes for softmax, too', async () => {
    for (const mode of ['paper', 'calibrated', 'faithful']) {
      const { code, stdout, stderr } = await convert('sigmoid.onnx', mode, '--json');
      assert.equal(code, 0, stderr);
      const { replaced, verify } = JSON.parse(stdout) as ConvertJson;
      assert.equal(replaced, 1);
      assert.ok(verify.passed && verify.drift[0]!.maxRelative < 1e-5, `${mode}: ${stdout}`);
    }
  });

  it('verifies the structure of paper mode and says how far it is from the original', async () => {
    const { code, stdout, stderr } = await convert('softmax.onnx', 'paper', '--json');
    assert.equal(code, 0, stderr);
    const { verify } = JSON.parse(stdout) as ConvertJson;
    assert.ok(verify.structure[0]!.maxRelative < 1e-4);
    assert.ok(verify.drift[0]!.maxRelative > 1e-3);
  });

  it('calibrates on sample data, nearer to softmax than b = -log n', async () => {
    const { code, stdout, stderr } = await convert('softmax.onnx', 'calibrated', '--json');
    assert.equal(code, 0, stderr);
    const { calibration, verify } = JSON.parse(stdout) as ConvertJson;
    for (const { error, paperError } of calibration.sites)
      assert.ok(error < paperError, `${error} ${paperError}`);
    assert.ok(verify.structure[0]!.maxRelative < 1e-4);
    const kept = await convert('softmax.onnx', 'calibrated', '--keep', '1', '--json');
    const sites = (JSON.parse(kept.stdout) as ConvertJson).sites;
    assert.deepEqual(sites.map(({ attributes }) => attributes['normalize']).sort(), [0, 1]);
  });

  it('scores both models with a metric of the user', async () => {
    const module = `export const metricName = 'mean';
      export async function metric({ run, inputs }) {
        const data = new Float32Array(2 * 5 * 8).map((_, i) => Math.sin(i));
        const { y } = await run({ [inputs[0].name]: { type: 'float32', dims: [2, 5, 8], data } });
        return y.data.reduce((a, b) => a + b, 0) / y.data.length;
      }`;
    await writeFile(at('metric.mjs'), module);
    const { code, stdout, stderr } = await convert(
      'softmax.onnx',
      'faithful',
      '--metric',
      at('metric.mjs'),
      '--json',
    );
    assert.equal(code, 0, stderr);
    const { metric } = JSON.parse(stdout) as {
      metric: { name: string; original: number; converted: number };
    };
    assert.equal(metric.name, 'mean');
    assert.ok(Math.abs(metric.original - metric.converted) < 1e-6 && metric.original !== 0);
  });

  it('emits a sigmoid model in standard operators only', async () => {
    const { code, stderr } = await convert('softmax.onnx', 'paper', '--emit', 'decomposed');
    assert.equal(code, 0, stderr);
    const bytes = await readFile(at('out.onnx'));
    assert.equal(bytes.includes('ort.sigmoid'), false);
    assert.equal(bytes.includes('Softmax'), false);
    const operator = at('operator.onnx');
    await runCli('convert', at('softmax.onnx'), '-o', operator, '--mode', 'paper');
    const verified = await runCli('verify', at('out.onnx'), operator);
    assert.equal(verified.code, 0, verified.stdout + verified.stderr);
  });

  it('writes no file over another that it reads or writes', async () => {
    const { model, data } = withExternalData(attentionModel({ headSize: 16 }), 'weights.bin');
    await writeFile(at('large.onnx'), model);
    await writeFile(at('weights.bin'), data);
    for (const [output, report, refused] of [
      ['large.onnx', 'r.html', /output .*large\.onnx: is the input itself/],
      ['weights.bin', 'r.html', /output .*weights\.bin: is the model's external data itself/],
      ['out.onnx', 'weights.bin', /report .*weights\.bin: is the model's external data itself/],
      ['out.onnx', './out.onnx', /report .*out\.onnx: is the output itself, another file name is needed/],
    ] as const) {
      const command = ['convert', at('large.onnx'), '-o', at(output), '--mode', 'faithful'];
      const { code, stderr } = await runCli(...command, '--report', `${folder}/${report}`);
      assert.equal(code, 1);
      assert.match(stderr, refused);
    }
    assert.deepEqual(await readFile(at('large.onnx')), Buffer.from(model));
    assert.deepEqual(await readFile(at('weights.bin')), Buffer.from(data));
  });

  it('refers to external data in the same folder, copies it on demand, and never loses it', async () => {
    const { model, data } = withExternalData(attentionModel({ layers: 2 }), 'weights.bin');
    await writeFile(at('big.onnx'), model);
    await writeFile(at('weights.bin'), data);
    await mkdir(at('other'));
    const beside = await convert('big.onnx', 'faithful');
    assert.equal(beside.code, 0, beside.stderr);
    assert.equal((await runCli('verify', at('softmax.onnx'), at('out.onnx'))).code, 0);
    const elsewhere = ['convert', at('big.onnx'), '-o', at('other/out.onnx'), '--mode', 'faithful'];
    const refused = await runCli(...elsewhere);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /keeps its numbers in weights\.bin beside it.*--copy-external-data/);
    assert.deepEqual(await readdir(at('other')), []);
    const copied = await runCli(...elsewhere, '--copy-external-data');
    assert.equal(copied.code, 0, copied.stderr);
    assert.deepEqual(await readFile(at('other/weights.bin')), Buffer.from(data));
    assert.equal((await runCli('verify', at('softmax.onnx'), at('other/out.onnx'))).code, 0);
  });

  it('keeps the fewest sites that a bound allows, and shows the trade', async () => {
    const auto = ['--keep', 'auto', '--within', '0.000001', '--report', at('r.html')];
    const { code, stdout, stderr } = await convert('softmax.onnx', 'calibrated', ...auto);
    assert.equal(code, 0, stderr);
    assert.match(
      stdout,
      /Kept 2 of 2 sites faithful: relative L2 distance of the outputs, may move by 1\.0e-6/,
    );
    assert.match(
      stdout,
      /\n {3}0 .*beyond the bound\n {3}1 .*beyond the bound\n {3}2 .*(within|beyond) the bound/,
    );
    const page = await readFile(at('r.html'), 'utf8');
    assert.match(
      page,
      /aria-label="relative L2 distance of the outputs by the number of sites kept faithful"/,
    );
    assert.ok(!page.includes('NaN'));
  });

  it('says that there is nothing to convert', async () => {
    for (const [model, mode] of [
      ['classifier.onnx', 'faithful'],
      ['softmax.onnx', 'fuse'],
    ] as const) {
      const { code, stdout, stderr } = await convert(model, mode, '--json');
      assert.equal(code, 3, stderr);
      assert.match(stderr, /^nothing to convert in .*\n$/);
      assert.equal(stderr.includes('(faithful, paper and calibrated convert softmax)'), mode === 'fuse');
      assert.equal((JSON.parse(stdout) as ConvertJson).replaced, 0);
      assert.deepEqual((await readdir(folder)).sort(), inputs);
    }
  });

  it('fails where two models differ', async () => {
    await writeFile(at('other.onnx'), attentionModel({ layers: 2, seed: 9 }));
    const { code, stdout } = await runCli('verify', at('softmax.onnx'), at('other.onnx'));
    assert.equal(code, 4);
    assert.match(stdout, /✘ different: largest relative difference/);
  });

  it('times models in turns', async () => {
    const { code, stdout, stderr } = await runCli('bench', at('softmax.onnx'), at('sigmoid.onnx'), '--json');
    assert.equal(code, 0, stderr);
    const { rows } = JSON.parse(stdout) as { rows: { medianMs: number; speedup: number }[] };
    assert.equal(rows.length, 2);
    assert.equal(rows[0]!.speedup, 1);
    assert.ok(rows.every(({ medianMs }) => medianMs > 0));
  });

  /** Name, exit code, sentence on stderr, arguments. */
  type Mistake = readonly [string, number, RegExp, () => string[] | Promise<string[]>];
  const converting = (model: string, output = 'out.onnx', ...more: string[]): string[] => [
    'convert',
    at(model),
    '-o',
    at(output),
    '--mode',
    'faithful',
    ...more,
  ];
  const written = async (
    name: string,
    bytes: Uint8Array | string,
    argv: () => string[],
  ): Promise<string[]> => {
    await writeFile(at(name), bytes);
    return argv();
  };
  const mistakes: readonly Mistake[] = [
    ['an unknown command', 1, /unknown command 'transmogrify'/, () => ['transmogrify']],
    [
      'an unknown mode',
      1,
      /argument 'softmin' is invalid.*fuse, faithful, calibrated, paper/,
      () => ['convert', at('softmax.onnx'), '-o', at('out.onnx'), '--mode', 'softmin'],
    ],
    [
      'no output',
      1,
      /required option '-o, --output <file>'/,
      () => ['convert', at('softmax.onnx'), '--mode', 'fuse'],
    ],
    [
      'a bad number',
      1,
      /'many' is invalid. a whole number is needed/,
      () => converting('softmax.onnx', 'out.onnx', '--seed', 'many'),
    ],
    [
      'keep without calibration',
      1,
      /--keep needs --mode calibrated, found faithful/,
      () => converting('softmax.onnx', 'out.onnx', '--keep', '1'),
    ],
    [
      'a keep that is no number',
      1,
      /'some' is invalid. a whole number or "auto" is needed/,
      () => converting('softmax.onnx', 'out.onnx', '--keep', 'some'),
    ],
    [
      'a bound without keep auto',
      1,
      /--within needs --keep auto, found no --keep/,
      () => converting('softmax.onnx', 'out.onnx', '--within', '3%'),
    ],
    [
      'a bound that is no number',
      1,
      /'few' is invalid. a number that is not negative, or one with % is needed/,
      () => converting('softmax.onnx', 'out.onnx', '--within', 'few'),
    ],
    [
      'a metric with an unknown direction',
      1,
      /metricBetter is "bigger"; "higher" or "lower" is allowed/,
      () =>
        written('m.mjs', 'export const metric = () => 1, metricBetter = "bigger";', () =>
          converting('softmax.onnx', 'out.onnx', '--metric', at('m.mjs')),
        ),
    ],
    ['a missing model', 2, /nowhere\.onnx: no such file or folder/, () => converting('nowhere.onnx')],
    [
      'a missing model to inspect',
      2,
      /nowhere\.onnx: no such file or folder/,
      () => ['inspect', at('nowhere.onnx')],
    ],
    ['a folder as model', 2, /: is a folder, a file is needed/, () => ['inspect', folder]],
    ['an empty file', 2, /the file is empty/, () => written('x.onnx', '', () => converting('x.onnx'))],
    [
      'a text file',
      2,
      /x\.onnx: invalid ONNX model at byte/,
      () => written('x.onnx', 'This is no model.', () => converting('x.onnx')),
    ],
    [
      'a truncated file',
      2,
      /x\.onnx: invalid ONNX model at byte/,
      () => written('x.onnx', attentionModel().subarray(0, 700), () => converting('x.onnx')),
    ],
    [
      'a model with wrong types',
      2,
      /ONNX Runtime cannot run the original model|no attention/,
      () => written('x.onnx', mistypedModel(), () => ['verify', at('x.onnx'), at('x.onnx')]),
    ],
    [
      'an output folder that does not exist',
      1,
      /cannot be written, no such file or folder/,
      () => converting('softmax.onnx', 'no/where.onnx'),
    ],
    [
      'a folder as output',
      1,
      /is a folder, a file name is needed/,
      async () => {
        await mkdir(at('d'));
        return converting('softmax.onnx', 'd');
      },
    ],
    [
      'a file as output folder',
      1,
      /cannot be written, a part of the path is not a folder/,
      () => converting('softmax.onnx', 'softmax.onnx/out.onnx'),
    ],
    ['the input as output', 1, /is the input itself/, () => converting('softmax.onnx', 'softmax.onnx')],
    [
      'a report that cannot be written',
      1,
      /report .*cannot be written/,
      () => converting('softmax.onnx', 'out.onnx', '--report', at('no/r.html')),
    ],
    [
      'a metric module without metric',
      1,
      /metric .*m\.mjs: the module must export a function "metric"/,
      () =>
        written('m.mjs', 'export const x = 1;', () =>
          converting('softmax.onnx', 'out.onnx', '--metric', at('m.mjs')),
        ),
    ],
    [
      'missing sample data',
      1,
      /sample data .*nothing: no such file or folder/,
      () => converting('softmax.onnx', 'out.onnx', '--data', at('nothing')),
    ],
    [
      'sample data of a wrong type',
      1,
      /input "x" needs float32 of rank 3, found int32 \[1, 2, 8\]/,
      () =>
        written('x.npz', zipSync({ 'x.npy': npy('<i4', [1, 2, 8], new Int32Array(16)) }), () =>
          converting('softmax.onnx', 'out.onnx', '--data', at('x.npz')),
        ),
    ],
    [
      'sample data of a wrong size',
      1,
      /input "x" needs the shape \[batch, length, 8\], found float32 \[1, 2, 7\]/,
      () =>
        written('x.npz', zipSync({ 'x.npy': npy('<f4', [1, 2, 7], new Float32Array(14)) }), () =>
          converting('softmax.onnx', 'out.onnx', '--data', at('x.npz')),
        ),
    ],
  ];
  for (const [what, code, sentence, argv] of mistakes) {
    it(`refuses ${what} with exit code ${code}`, async () => {
      const given = await argv();
      const before = (await readdir(folder)).sort();
      const result = await runCli(...given);
      assert.equal(result.code, code, result.stdout + result.stderr);
      assert.match(result.stderr, sentence);
      assert.ok(!/\n\s+at /.test(result.stderr), result.stderr);
      assert.deepEqual((await readdir(folder)).sort(), before);
    });
  }
});
