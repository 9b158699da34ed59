/**
 * How long inspecting takes as a model grows, in processor time, on transformer-like
 * models of 200 to 100,000 nodes.
 */
import { inspect, openModel } from '../../converter/index.js';
import { FLOAT, ModelBuilder } from '../../proving/model-builder.js';

/** Nodes of one layer below. */
const LAYER_NODES = 42;

/** A decoder of `layers` layers with an attention site each, computed shapes and a causal mask, and tiny weights. */
export function layeredModel(layers: number): Uint8Array {
  const b = new ModelBuilder(17);
  const width = 16;
  b.input('x', FLOAT, ['batch', 'n', width]);
  const weight = b.constant(FLOAT, [width, width], new Array<number>(width * width).fill(0.01));
  const bias = b.constant(FLOAT, [width], new Array<number>(width).fill(0));
  let x = 'x';
  for (let layer = 0; layer < layers; layer++) {
    const shape = b.op('Concat', [b.size(x, 0), b.size(x, 1), b.ints([4]), b.ints([4])], { axis: 0 });
    const project = (): string => {
      const product = b.op('Add', [b.op('MatMul', [x, weight]), bias]);
      return b.op('Transpose', [b.op('Reshape', [product, shape])], { perm: [0, 2, 1, 3] });
    };
    const [q, k, v] = [project(), project(), project()];
    const scores = b.op('Mul', [
      b.op('MatMul', [q, b.op('Transpose', [k], { perm: [0, 1, 3, 2] })]),
      b.scalar(FLOAT, 0.5),
    ]);
    const heads = b.op('MatMul', [b.op('Softmax', [scores], { axis: -1 }), v]);
    const flat = b.op('Reshape', [b.op('Transpose', [heads], { perm: [0, 2, 1, 3] }), b.ints([0, 0, width])]);
    x = b.op('Add', [x, b.op('Add', [b.op('MatMul', [flat, weight]), bias])]);
    x = b.op('Add', [x, feedForward(b, normalise(b, x), weight, bias)]);
  }
  b.op('Identity', [x], {}, 'y');
  b.output('y');
  return b.toBytes();
}

/** Layer normalisation written out. */
function normalise(b: ModelBuilder, x: string): string {
  const centred = b.op('Sub', [x, b.reduce('ReduceMean', x, -1)]);
  const variance = b.reduce('ReduceMean', b.op('Mul', [centred, centred]), -1);
  return b.op('Div', [centred, b.op('Sqrt', [b.op('Add', [variance, b.scalar(FLOAT, 1e-5)])])]);
}

/** Two products with x * sigmoid(1.7 x) between them. */
function feedForward(b: ModelBuilder, x: string, weight: string, bias: string): string {
  const inner = b.op('Add', [b.op('MatMul', [x, weight]), bias]);
  const gate = b.op('Sigmoid', [b.op('Mul', [inner, b.scalar(FLOAT, 1.7)])]);
  return b.op('Add', [b.op('MatMul', [b.op('Mul', [inner, gate]), weight]), bias]);
}

/** Hardly anything but attention: `sites` sites of 13 nodes each. */
export function denseModel(sites: number): Uint8Array {
  const b = new ModelBuilder(17);
  const width = 16;
  b.input('x', FLOAT, ['batch', 'n', width]);
  const weight = b.constant(FLOAT, [width, width], new Array<number>(width * width).fill(0.01));
  const shapes = { heads: b.ints([0, -1, 4, 4]), flat: b.ints([0, -1, width]) };
  const half = b.scalar(FLOAT, 0.5);
  let x = 'x';
  for (let site = 0; site < sites; site++) {
    const apart = (perm: readonly number[]): string =>
      b.op('Transpose', [b.op('Reshape', [x, shapes.heads])], { perm });
    const [query, key, value] = [apart([0, 2, 1, 3]), apart([0, 2, 3, 1]), apart([0, 2, 1, 3])];
    const scores = b.op('Mul', [b.op('MatMul', [query, key]), half]);
    const heads = b.op('MatMul', [b.op('Softmax', [scores], { axis: -1 }), value]);
    const flat = b.op('Reshape', [b.op('Transpose', [heads], { perm: [0, 2, 1, 3] }), shapes.flat]);
    x = b.op('MatMul', [flat, weight]);
  }
  b.op('Identity', [x], {}, 'y');
  b.output('y');
  return b.toBytes();
}

export interface ScalingRow {
  readonly nodes: number;
  readonly sites: number;
  /** Median processor time of opening and inspecting, in milliseconds. */
  readonly milliseconds: number;
}

export function measureScaling(): ScalingRow[] {
  return [200, 1000, 5000, 20_000, 100_000].map((nodes) =>
    measure(layeredModel(Math.round(nodes / LAYER_NODES)), nodes > 10_000 ? 3 : 15),
  );
}

/** The model of 100,000 nodes with as many sites as fit into it. */
export function measureDense(): ScalingRow {
  return measure(denseModel(7700), 3);
}

function measure(bytes: Uint8Array, runs: number): ScalingRow {
  const times: number[] = [];
  let sites = 0;
  let nodes = 0;
  for (let run = 0; run < runs; run++) {
    const before = process.cpuUsage();
    const inspection = inspect(openModel(bytes));
    const { user, system } = process.cpuUsage(before);
    times.push((user + system) / 1000);
    sites = inspection.sites.filter(({ replaceable }) => replaceable).length;
    nodes = inspection.nodeCount;
  }
  times.sort((a, b) => a - b);
  return { nodes, sites, milliseconds: times[times.length >> 1]! };
}
