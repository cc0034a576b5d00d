def write_card(corpus): pass
