/** What a conversion leaves alone: bytes, unknown fields, external data; and how it answers broken files. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execFileSync } from 'node:child_process';
import { build } from 'esbuild';
import { convert, inspect, ModelFormatError, openModel } from '../../converter/index.js';
import { openModelFile, writePieces } from '../../converter/onnx/file.js';
import { modelPieces } from '../../converter/onnx/write.js';
import { Random } from './generator/random.js';
import { FLOAT, ModelBuilder } from '../../proving/model-builder.js';

const random = new Random(3);

function layer(width = 16): ModelBuilder {
  const b = new ModelBuilder(17);
  b.input('x', FLOAT, [2, 'n', width]);
  const project = (name: string): string => {
    const product = b.op('MatMul', [
      'x',
      b.constant(FLOAT, [width, width], random.normals(width * width), name),
    ]);
    return b.op('Transpose', [b.op('Reshape', [product, b.ints([0, 0, 4, width / 4])])], {
      perm: [0, 2, 1, 3],
    });
  };
  const [q, k, v] = ['wq', 'wk', 'wv'].map(project) as [string, string, string];
  const scores = b.op('Mul', [
    b.op('MatMul', [q, b.op('Transpose', [k], { perm: [0, 1, 3, 2] })]),
    b.scalar(FLOAT, 0.5),
  ]);
  b.op('MatMul', [b.op('Softmax', [scores], { axis: -1 }), v], {}, 'y');
  b.output('y');
  return b;
}

/** A field that no reader knows: number 2000, three bytes. */
const UNKNOWN = Uint8Array.of(0x82, 0x7d, 3, 1, 2, 3);

describe('bytes of a converted model', () => {
  it('keep everything that was not touched, unknown fields included', () => {
    const bytes = Buffer.concat([layer().toBytes(), UNKNOWN]);
    const converted = Buffer.from(convert(openModel(bytes), { mode: 'faithful' }).toBytes());
    assert.ok(converted.includes(Buffer.from(UNKNOWN)), 'the unknown field is gone');
    const model = openModel(bytes);
    for (const name of ['wq', 'wk', 'wv']) {
      const { start, end } = model.graph.initializers.get(name)!.span;
      assert.ok(converted.includes(bytes.subarray(start, end)), `initializer ${name} changed`);
    }
    for (const node of model.graph.nodes.filter(({ opType }) => opType === 'MatMul').slice(0, 3)) {
      assert.ok(
        converted.includes(bytes.subarray(node.span.start, node.span.end)),
        `node ${node.name} changed`,
      );
    }
  });

  it('are those of the source when nothing changes', () => {
    const bytes = Uint8Array.from(layer().toBytes());
    const model = openModel(bytes);
    assert.deepEqual(convert(model, { mode: 'fuse' }).toBytes(), bytes);
    const edit = {
      graphs: new Map(),
      irVersion: model.irVersion,
      opsets: new Map<string, number>(),
      functions: [],
      metadata: [],
    };
    const joined = modelPieces(model, edit).map((piece) =>
      piece instanceof Uint8Array ? piece : bytes.subarray(piece.start, piece.end),
    );
    assert.deepEqual(new Uint8Array(Buffer.concat(joined)), bytes);
  });

  it('carry where they come from, on the model and on the node', () => {
    const converted = openModel(convert(openModel(layer().toBytes()), { mode: 'faithful' }).toBytes());
    assert.equal(converted.metadata.get('ort.sigmoid.converted'), '1 sites, mode faithful');
    assert.equal(converted.opsets.get('ort.sigmoid'), 1);
    assert.equal(converted.graph.nodes.filter(({ opType }) => opType === 'SigmoidAttention').length, 1);
  });
});

describe('broken model files', () => {
  const bytes = layer().toBytes();
  const broken: readonly [string, Uint8Array][] = [
    ['an empty file', new Uint8Array(0)],
    ['text', new TextEncoder().encode('this is not a model, it is a sentence')],
    ['a file cut in the middle', bytes.subarray(0, bytes.length >> 1)],
    ['a file cut near its end', bytes.subarray(0, bytes.length - 3)],
  ];
  for (const [what, content] of broken) {
    it(`refuses ${what} with one clear sentence`, () => {
      assert.throws(
        () => inspect(openModel(content)),
        (error: unknown) =>
          error instanceof ModelFormatError && /^invalid ONNX model at byte \d+: /.test(error.message),
      );
    });
  }

  it('never fails in another way, wherever a file is cut or a byte is wrong', () => {
    for (let i = 0; i < 400; i++) {
      const copy = Uint8Array.from(
        bytes.subarray(0, i % 2 === 0 ? bytes.length : random.integer(1, bytes.length)),
      );
      if (i % 2 === 0) copy[random.integer(0, Math.min(copy.length - 1, 2500))] = random.integer(0, 255);
      try {
        convert(openModel(copy), { mode: 'faithful' });
      } catch (error) {
        assert.ok(error instanceof ModelFormatError, String((error as Error).stack));
      }
    }
  });
});

describe('model files', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'sigmoid-attention-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  it('with gigabytes of external data convert in little memory, and their data is referenced', function () {
    this.timeout(120_000);
    const b = layer();
    const gigabytes = 4;
    const rows = (gigabytes * 2 ** 30) / 4 / 1024;
    b.initializers.push({
      name: 'table',
      dataType: FLOAT,
      dims: [rows, 1024],
      dataLocation: 1,
      externalData: [
        { key: 'location', value: 'weights.bin' },
        { key: 'offset', value: '0' },
        { key: 'length', value: String(gigabytes * 2 ** 30) },
      ],
    });
    b.op('Gather', ['table', b.ints([0])], { axis: 0 }, 'rows');
    b.output('rows');
    writeFileSync(join(folder, 'large.onnx'), b.toBytes());
    writeFileSync(join(folder, 'weights.bin'), '');
    truncateSync(join(folder, 'weights.bin'), gigabytes * 2 ** 30);
    const script = `
      import { openModelFile, writePieces } from ${JSON.stringify(new URL('../../converter/onnx/file.ts', import.meta.url).href)};
      import { convert } from ${JSON.stringify(new URL('../../converter/index.ts', import.meta.url).href)};
      const opened = openModelFile(process.argv[1]);
      const conversion = convert(opened.model, { mode: 'faithful' });
      writePieces(process.argv[2], conversion.pieces());
      console.log(JSON.stringify({ replaced: conversion.replaced.length, memory: process.resourceUsage().maxRSS * 1024 }));
    `;
    const output = execFileSync(
      process.execPath,
      [
        '--import',
        'tsx',
        '--input-type=module',
        '-e',
        script,
        join(folder, 'large.onnx'),
        join(folder, 'out.onnx'),
      ],
      { encoding: 'utf8' },
    );
    const { replaced, memory } = JSON.parse(output) as { replaced: number; memory: number };
    assert.equal(replaced, 1);
    assert.ok(memory < 300 * 2 ** 20, `used ${Math.round(memory / 2 ** 20)} MiB`);
    const converted = openModelFile(join(folder, 'out.onnx'));
    assert.equal(converted.model.graph.initializers.get('table')?.external?.get('location'), 'weights.bin');
    converted.close();
  });

  it('stream large inline weights unchanged', function () {
    this.timeout(120_000);
    const b = layer();
    const count = 16 * 2 ** 20;
    const raw = new Uint8Array(4 * count);
    for (let i = 0; i < raw.length; i += 4096) raw[i] = i / 4096;
    b.initializers.push({ name: 'table', dataType: FLOAT, dims: [count], rawData: raw });
    b.op('Identity', ['table'], {}, 'copy');
    b.output('copy');
    const path = join(folder, 'inline.onnx');
    writeFileSync(path, b.toBytes());
    const opened = openModelFile(path);
    const conversion = convert(opened.model, { mode: 'faithful' });
    writePieces(join(folder, 'inline-out.onnx'), conversion.pieces());
    const { raw: span } = opened.model.graph.initializers.get('table')!;
    const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
    const before = hash(opened.model.source.read(span!.start, span!.end));
    opened.close();
    const after = openModelFile(join(folder, 'inline-out.onnx'));
    const found = after.model.graph.initializers.get('table')!.raw!;
    assert.equal(hash(after.model.source.read(found.start, found.end)), before);
    after.close();
  });

  it('appear whole or not at all', () => {
    const target = join(folder, 'half.onnx');
    const pieces = function* (): Iterable<Uint8Array> {
      yield Uint8Array.of(1, 2, 3);
      throw new Error('the disk is full');
    };
    assert.throws(() => writePieces(target, pieces()), /the disk is full/);
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.startsWith('half')),
      [],
    );
  });
});

describe('the converter without Node', () => {
  it('bundles for a browser without any of its modules', async () => {
    const result = await build({
      entryPoints: [new URL('../../converter/index.ts', import.meta.url).pathname],
      bundle: true,
      write: false,
      platform: 'browser',
      format: 'esm',
      metafile: true,
      logLevel: 'silent',
    });
    const imports = Object.values(result.metafile.outputs).flatMap(({ imports: found }) =>
      found.map(({ path }) => path),
    );
    assert.deepEqual(imports, []);
    assert.ok(!Object.keys(result.metafile.inputs).some((path) => path.endsWith('onnx/file.ts')));
  });
});
