// Validates objects of KEDA and cert-manager, as JSON on standard input, against the schemas of their own definitions.
// Prints a line for each that is not valid. Runs in the folder of the packages: node --input-type=module --eval TEXT
import { readFileSync } from "node:fs";

for (const object of JSON.parse(readFileSync(0))) {
  const name = object.apiVersion.startsWith("keda.sh/") ? "keda" : "cert-manager";
  const module = `@kubernetes-models/${name}/${object.apiVersion}/${object.kind}`;
  const { [object.kind]: Model } = await import(module);
  try {
    new Model(object).validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
