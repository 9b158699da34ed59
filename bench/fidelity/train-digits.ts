/** Trains the digits classifier and writes digits.onnx: `npx tsx bench/fidelity/train-digits.ts`, a few minutes. */
import { writeFileSync } from 'node:fs';
import { RandomNumbers } from '../../converter/data/random-numbers.js';
import { Matrix, Tape } from './autograd.js';
import { loadDigits, PIXELS, shuffled, type Digits } from './digits-data.js';
import { digitsModel, forward, freshParameters, patches, type Parameters } from './digits-model.js';

const EPOCHS = 8;
const BATCH = 32;
const PEAK_RATE = 3e-3;

class Adam {
  #step = 0;
  readonly #moments: Map<Matrix, [Float32Array, Float32Array]>;

  constructor(private readonly parameters: Parameters) {
    this.#moments = new Map(
      Object.values(parameters).map(({ data }, i) => [
        Object.values(parameters)[i]!,
        [new Float32Array(data.length), new Float32Array(data.length)],
      ]),
    );
  }

  update(rate: number): void {
    this.#step++;
    for (const matrix of Object.values(this.parameters)) {
      const [first, second] = this.#moments.get(matrix)!;
      for (let i = 0; i < matrix.data.length; i++) {
        const gradient = matrix.grad[i]!;
        first[i] = 0.9 * first[i]! + 0.1 * gradient;
        second[i] = 0.99 * second[i]! + 0.01 * gradient * gradient;
        const mean = first[i]! / (1 - 0.9 ** this.#step);
        const scale = Math.sqrt(second[i]! / (1 - 0.99 ** this.#step)) + 1e-8;
        matrix.data[i]! -= rate * (mean / scale + 0.01 * matrix.data[i]!);
      }
      matrix.grad.fill(0);
    }
  }
}

function accuracy(parameters: Parameters, digits: Digits): number {
  let right = 0;
  for (let from = 0; from < digits.count; from += BATCH) {
    const to = Math.min(digits.count, from + BATCH);
    const scores = forward(
      new Tape(),
      parameters,
      patches(digits.images.subarray(from * PIXELS, to * PIXELS)),
    );
    for (let row = 0; row < to - from; row++) {
      const own = scores.data.subarray(row * 10, row * 10 + 10);
      if (own.indexOf(own.reduce((max, value) => Math.max(max, value))) === digits.labels[from + row])
        right++;
    }
  }
  return right / digits.count;
}

const { training, heldBack } = loadDigits();
const parameters = freshParameters(1);
const adam = new Adam(parameters);
const random = new RandomNumbers(2);
const steps = EPOCHS * Math.floor(training.count / BATCH);
let step = 0;
for (let epoch = 0; epoch < EPOCHS; epoch++) {
  const order = shuffled(training.count, random);
  let loss = 0;
  let batches = 0;
  for (let from = 0; from + BATCH <= order.length; from += BATCH) {
    const images = new Float32Array(BATCH * PIXELS);
    const labels = new Uint8Array(BATCH);
    for (let row = 0; row < BATCH; row++) {
      const index = order[from + row]!;
      images.set(training.images.subarray(index * PIXELS, (index + 1) * PIXELS), row * PIXELS);
      labels[row] = training.labels[index]!;
    }
    const tape = new Tape();
    loss += tape.crossEntropy(forward(tape, parameters, patches(images)), labels);
    tape.backward();
    const warm = Math.min(1, step / 200);
    adam.update(PEAK_RATE * warm * 0.5 * (1 + Math.cos((Math.PI * step) / steps)));
    step++;
    batches++;
  }
  console.log(
    `epoch ${epoch + 1}: loss ${(loss / batches).toFixed(4)}, held back ${accuracy(parameters, heldBack)}`,
  );
}
writeFileSync(new URL('digits.onnx', import.meta.url), digitsModel(parameters));
