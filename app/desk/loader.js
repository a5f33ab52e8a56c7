// The door from Streamlit. The desk itself came with the page, once; every answer of the server carries only these lines.

const ready = () =>
  globalThis.consiliumDesk
    ? Promise.resolve(globalThis.consiliumDesk)
    : new Promise((resolve) => addEventListener("consilium-desk", () => resolve(globalThis.consiliumDesk), { once: true }));

export default async function (component) {
  return (await ready())(component);
}
