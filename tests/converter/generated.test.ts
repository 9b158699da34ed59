/** Two thousand spellings of attention, made from fixed seeds: each is converted and computes what it did before. */
import assert from 'node:assert/strict';
import { checkModel } from '../../proving/check-model.js';
import { Random } from './generator/random.js';
import { randomRecipe } from './generator/recipe.js';
import { spell } from './generator/spell.js';

const MODELS = 2000;
const PER_TEST = 100;

describe('converter on generated spellings', function () {
  this.timeout(300_000);

  for (let first = 0; first < MODELS; first += PER_TEST) {
    it(`converts and verifies seeds ${first} to ${first + PER_TEST - 1}`, async () => {
      for (let seed = first; seed < first + PER_TEST; seed++) {
        const random = new Random(seed);
        const recipe = randomRecipe(seed, random);
        const { bytes, feeds } = spell(recipe, random);
        const mode = recipe.activation.startsWith('sigmoid') ? 'fuse' : 'faithful';
        const outcome = await checkModel(bytes, [feeds], { mode });
        const story = `seed ${seed}: ${JSON.stringify({ recipe, outcome })}`;
        assert.equal(outcome.replaced, 1, story);
        // bfloat16 keeps 8 bits, and the model rounds its scores too.
        const bound = recipe.isBrain ? 3e-2 : recipe.isHalf ? 5e-3 : 1e-4;
        assert.ok(outcome.error !== null && outcome.error <= bound, story);
      }
    });
  }
});
