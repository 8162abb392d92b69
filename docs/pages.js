// Keep each option of a command in one piece: Chromium breaks lines after "--".
for (const code of document.querySelectorAll("code")) {
  const walker = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const text of texts) {
    const pieces = text.data.split(/(--[a-z][\w-]*)/);
    if (pieces.length === 1) continue;
    text.replaceWith(
      ...pieces.map((piece, index) => {
        if (index % 2 === 0) return piece;
        const option = document.createElement("span");
        option.className = "option";
        option.textContent = piece;
        return option;
      }),
    );
  }
}
