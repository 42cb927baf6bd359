// node example.mjs [HOST:PORT] [QUERY]: prints a decision, streams an answer, shows an error.
import { RouterClient, RouterError } from './semroute.js';

const [address, query = 'write a python script'] = process.argv.slice(2);
const client = new RouterClient(address);

const { classification, model, backend } = await client.decide(query);
console.log(`decision: ${classification.task || 'none'} -> ${model} on ${backend}`);

for await (const { event, delta, finish } of client.complete(query)) {
  if (event === 'delta') process.stdout.write(delta.text);
  if (event === 'finish') console.log(`\nfinish: ${finish.reason}, ${finish.model}`);
}

try {
  await client.decide(query, { profile: 'no_such_profile' });
} catch (error) {
  if (!(error instanceof RouterError)) throw error;
  console.log(`error: ${error.code}, ${error.reason}`);
}

client.close();
