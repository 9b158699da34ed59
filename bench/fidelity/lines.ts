/** Lines of text for the recogniser: made from a word list by seed, in fonts and sizes that fitting and judging do not share. */
import { RandomNumbers } from '../../converter/data/random-numbers.js';
import type { Font, TextLine } from '../../examples/ocr/render.js';

const WORDS = (
  'about above account across action address after again against agree allow almost alone along already also always ' +
  'amount animal another answer appear apple arrive article autumn average balance barely basket because become before ' +
  'begin behind believe better between beyond bicycle board bottle bridge bright broken brother brown budget building ' +
  'butter camera carbon careful castle catch centre certain chapter circle citizen clear climate closed coffee colour ' +
  'column common company complete contract corner cotton country course cover credit crossing current customer danger ' +
  'decide deliver design detail dinner direct distance doctor double drawing driver during early eastern editor effect ' +
  'either electric empty engine enough equal evening every exact example expect factor family farmer fashion figure ' +
  'final finger flight flower follow foreign forest forget formal forward fourth freedom fresh garden general gentle ' +
  'glass golden ground growth habit handle harbour health heavy height hidden history holiday horizon hotel hundred ' +
  'image import include index indoor inside instead invoice island jacket journey judge kitchen known ladder language ' +
  'large later leather letter level library light limit liquid little local machine major manner margin market matter ' +
  'meadow measure medium member method middle minute mirror modern moment morning motion mountain museum music narrow ' +
  'nation nature nearly needle never night normal north notice number object ocean office often option orange order ' +
  'origin other outside oxygen paper parcel parent partner pattern people period phone picture planet player please ' +
  'pocket point police possible potato power present price print private problem process product public purple quarter ' +
  'question quick quiet railway rather reason receipt record region remain repair report result return river safety ' +
  'sample school science season second secret series seven shadow shape shelter signal silver simple single sister ' +
  'sixth smooth social source southern special spring square station storm story street strong student summer supply ' +
  'surface system table target taxi teacher theory thirty through ticket timber today together tower travel twelve ' +
  'umbrella under uniform until update useful valley value various vessel village voice volume walk warm water weather ' +
  'weight western window winter within without wonder wooden world write yellow young zebra'
).split(' ');

export const FITTED_FONTS: readonly Font[] = ['Open Sans', 'Lora', 'DejaVu Serif'];
const FITTED_SIZES_PX = [24, 28, 32];
export const JUDGED_FONTS: readonly Font[] = ['Open Sans Bold', 'Lora Italic', 'DejaVu Sans', 'DejaVu Mono'];
const JUDGED_SIZES_PX = [20, 22, 26, 30, 36];

/** Lines to fit on. */
export const fittedLines = (count: number): TextLine[] => lines(count, 11, FITTED_FONTS, FITTED_SIZES_PX);
/** Lines to judge by: other text, fonts and sizes. */
export const judgedLines = (count: number): TextLine[] => lines(count, 4711, JUDGED_FONTS, JUDGED_SIZES_PX);

function lines(count: number, seed: number, fonts: readonly Font[], sizes: readonly number[]): TextLine[] {
  const random = new RandomNumbers(seed);
  const pick = <T>(items: readonly T[]): T => items[random.below(items.length)]!;
  return Array.from({ length: count }, () => ({
    text: sentence(random, pick),
    font: pick(fonts),
    sizePx: pick(sizes),
  }));
}

/** 3 to 8 words with capitals, numbers and punctuation as invoices and letters have them. */
function sentence(random: RandomNumbers, pick: <T>(items: readonly T[]) => T): string {
  const length = 3 + random.below(6);
  const parts: string[] = [];
  for (let i = 0; i < length; i++) {
    const kind = random.uniform();
    if (kind < 0.1) parts.push(String(random.below(100000)));
    else if (kind < 0.15) parts.push(`${random.below(1000)}.${String(random.below(100)).padStart(2, '0')}`);
    else {
      const word = pick(WORDS);
      parts.push(i === 0 || kind < 0.25 ? word[0]!.toUpperCase() + word.slice(1) : word);
    }
    if (i < length - 1 && random.uniform() < 0.12) parts[parts.length - 1] += pick([',', ';', ':']);
  }
  return parts.join(' ') + pick(['.', '.', '!', '?', '']);
}
