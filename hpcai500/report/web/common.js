"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

// Elements: all texts go through textContent, so that no name is ever taken for markup.
const SVG = "http://www.w3.org/2000/svg";
const add = (node, attributes, children) => {
  for (const [key, value] of Object.entries(attributes || {})) if (value != null) node.setAttribute(key, value);
  for (const child of children) if (child != null) node.append(child);
  return node;
};
const h = (name, attributes, ...children) => add(document.createElement(name), attributes, children);
const s = (name, attributes, ...children) => add(document.createElementNS(SVG, name), attributes, children);
